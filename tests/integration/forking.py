"""Processes that find each other as those of torchrun do, forked, since the imports of each would take seconds."""

import os
import signal
import socket
import traceback
from collections.abc import Callable

from prism.errors import PrismError

MAX_SECONDS = 300


def fork_all(num_processes: int, work: Callable[[], None]) -> list[str]:
    """Has every process do `work`. What each ended with: nothing, or its error."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    children = []
    for index in range(num_processes):
        reading, said = os.pipe()
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment |= {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(num_processes)}
        child = os.fork()
        if child == 0:
            _work(work, environment, said)
        os.close(said)
        children.append((child, reading))
    return [_last_words(*child) for child in children]


def _work(work: Callable[[], None], environment: dict[str, str], said: int) -> None:
    """What a forked process does before it ends."""
    os.environ |= environment
    os.dup2(2, 1)  # the answer of the program that forks stands alone in its output
    # One that waits for another that has failed would wait for hours.
    signal.alarm(MAX_SECONDS)
    try:
        work()
    except PrismError as error:
        os.write(said, str(error).encode())
    except BaseException:  # SystemExit too: a child must never go on as a second parent
        os.write(said, traceback.format_exc().encode())
    os._exit(0)


def _last_words(child: int, reading: int) -> str:
    with os.fdopen(reading) as pipe:
        heard = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return heard if status == 0 else f"{heard} ended with {status}"
