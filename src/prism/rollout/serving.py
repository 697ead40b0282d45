"""`prism serve`: an engine in a process of its own, on devices of its own, that trainers reach over HTTP.

    GET  /info       what it can take
    POST /weights    the policy's weights from now on, under a name that the trainer chooses
    POST /generate   samples of prompts from the weights of that name
    POST /sleep      frees what memory it can until the next weights

Whoever reaches the port can use it and replace its weights: it is for one machine or a private network. The engine
runs in the main thread, one request after the other, and HTTP in another.
"""

import asyncio
import json
import queue
import signal
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from aiohttp import web

from prism.config import ServeConfig, VllmRollout
from prism.errors import PrismError, RolloutError
from prism.models import PromptEncoder
from prism.rollout.engine import LocalEngine
from prism.rollout.sampling import Sampling
from prism.rollout.transformers_engine import TransformersEngine
from prism.rollout.vllm_engine import VllmEngine
from prism.rollout.wire import error_table, read_prompt, read_weights, rollout_table

_REFUSED = 422
_Job = tuple[Callable[[], Any], "Future[Any]"]


def serve(checkpoint: Path, config: ServeConfig, host: str, port: int) -> None:
    """Serves until a signal ends the process. Port 0 takes a free one. Raises what opening the engine raises."""
    rollout, max_pixels = config.rollout, config.max_pixels
    if isinstance(rollout, VllmRollout):
        encoder = PromptEncoder.from_pretrained(checkpoint, max_pixels=max_pixels)
        engine: LocalEngine = VllmEngine(checkpoint, encoder, rollout, max_length=config.max_length)
        dtype = rollout.dtype
    else:
        dtype = config.precision
        engine = TransformersEngine.of_checkpoint(
            checkpoint, batch_size=rollout.batch_size, max_pixels=max_pixels, precision=dtype
        )
    info = {"max_length": config.max_length, "max_pixels": max_pixels, "dtype": dtype, "engine": rollout.type}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        RolloutServer(engine, info).run(host, port)
    finally:
        engine.close()


class RolloutServer:
    def __init__(self, engine: LocalEngine, info: dict[str, Any]) -> None:
        self._engine, self._info = engine, info
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._weights: str | None = None

    def run(self, host: str, port: int) -> None:
        """Works in the calling thread for ever."""
        listening: Future[str] = Future()
        Thread(target=self._listen, args=(host, port, listening), daemon=True).start()
        print(f"serving rollouts at {listening.result()}", flush=True)
        while True:
            work, result = self._jobs.get()
            try:
                result.set_result(work())
            except Exception as error:  # the trainer's to hear of; the next request may be a better one
                result.set_exception(error)

    def _listen(self, host: str, port: int, listening: "Future[str]") -> None:
        async def main() -> None:
            app = web.Application(client_max_size=0)
            app.add_routes(
                [
                    web.get("/info", self._tell),
                    web.post("/weights", self._take_weights),
                    web.post("/generate", self._generate),
                    web.post("/sleep", self._sleep),
                ]
            )
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                listening.set_exception(RolloutError(f"cannot listen at {host}:{port}: {error.strerror or error}"))
                return
            own_port = runner.addresses[0][1]
            listening.set_result(f"http://{host}:{own_port}")
            await asyncio.Event().wait()

        asyncio.run(main())

    async def _in_turn(self, work: Callable[[], Any]) -> web.Response:
        """The JSON of what `work` returns, carried out by the main thread when those before are done."""
        future: Future[Any] = Future()
        self._jobs.put((work, future))
        try:
            return web.json_response(await asyncio.wrap_future(future))
        except PrismError as error:
            return web.json_response(error_table(error), status=_REFUSED)
        except Exception as error:  # the trainer is told, and the server's log has the rest
            traceback.print_exception(error)
            return web.json_response({"message": f"{type(error).__name__}: {error}; see the server's log"}, status=500)

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(self._info | {"weights": self._weights})

    async def _sleep(self, request: web.Request) -> web.Response:
        return await self._in_turn(self._engine.sleep)

    async def _take_weights(self, request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()

        def read(count: int) -> bytes:
            try:
                return asyncio.run_coroutine_threadsafe(request.content.readexactly(count), loop).result()
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                raise RolloutError("the trainer went away before all weights had come") from error

        def take() -> None:
            self._weights = None  # until all have come, these are nobody's
            weights = read_weights(read)
            try:
                self._engine.update_weights(weights)
            finally:
                for _ in weights:
                    pass  # a trainer that is still sending does not listen
            self._weights = request.query["name"]

        return await self._in_turn(take)

    async def _generate(self, request: web.Request) -> web.Response:
        asked = json.loads(await request.read())

        def generate() -> list[list[dict[str, Any]]]:
            if asked["weights"] != self._weights:
                raise RolloutError(
                    "the server's weights are not those that this run gave it: it was started anew, or serves another "
                    "run as well; give the run's command again, alone"
                )
            groups = self._engine.sample(
                [read_prompt(table) for table in asked["prompts"]],
                [tuple(source) for source in asked["streams"]],
                num_samples=asked["num_samples"],
                sampling=Sampling(asked["temperature"], asked["max_tokens"]),
            )
            return [[rollout_table(rollout) for rollout in group] for group in groups]

        return await self._in_turn(generate)
