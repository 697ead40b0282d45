"""Chat completions from any OpenAI-compatible server: vLLM, SGLang, OpenAI, Gemini's compatible endpoint.

Many requests are under way at once; see `openai_pool` for what is asked again. What will not pass ends the call with a
RolloutError. Neither errors nor records ever hold the API key.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from prism.rollout.openai_messages import ChatReply, ChatRequest
from prism.rollout.openai_pool import ChatPool
from prism.rollout.openai_server import ChatServer

__all__ = ["ChatReply", "ChatRequest", "chat", "served_model"]

_T = TypeVar("_T")


def chat(server: ChatServer, requests: Iterable[ChatRequest], on_reply: Callable[[int, ChatReply], None]) -> None:
    """Ask all `requests`, at most `server.concurrency` at a time; `on_reply` gets each one's index and reply.

    Replies come in any order, each as it arrives, so that what was answered before an error can be kept.
    `requests` is read lazily: only those under way are in memory. Works inside a running event loop, too.
    Raises RolloutError for the first request that fails for good; the others are given up.
    """
    _run(_chat(server, requests, on_reply))


def served_model(server: ChatServer) -> dict[str, str] | None:
    """What the server's list of models says about `server.model`: `id` and, from vLLM, `root`, the weights' place.

    None where the server has no such list or the model is not in it.
    """
    return _run(_served_model(server))


async def _chat(
    server: ChatServer, requests: Iterable[ChatRequest], on_reply: Callable[[int, ChatReply], None]
) -> None:
    numbered = enumerate(requests)

    async def work(pool: ChatPool) -> None:
        for number, request in numbered:
            on_reply(number, await pool.ask(request))

    try:
        async with ChatPool([server]) as pool, asyncio.TaskGroup() as workers:
            for _ in range(server.concurrency):
                workers.create_task(work(pool))
    except BaseExceptionGroup as errors:
        # The first failure cancelled the other workers: it is the one that matters.
        raise errors.exceptions[0] from None


async def _served_model(server: ChatServer) -> dict[str, str] | None:
    async with ChatPool([server]) as pool:
        models = await pool.models()
    for model in models:
        if model.get("id") == server.model:
            return {key: model[key] for key in ("id", "root") if isinstance(model.get(key), str)}
    return None


def _run(task: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(task)
    # A loop cannot be entered twice, and the caller's is busy with the call to us: a thread has its own.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, task).result()
