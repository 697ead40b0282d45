"""What a user sees while a stage runs: a bar in a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from prism.runtime.launch import is_first

WINDOW = 20
"""Speed and time left follow the last so many steps."""


class StepProgress:
    """Shows each step's `metrics` (the first three recorded ones when none are named), speed and time left.

    Outside a terminal it prints every `every`-th step and the last one, each as one line.
    """

    def __init__(
        self,
        name: str,
        num_steps: int,
        *,
        start: int = 0,
        metrics: Sequence[str] = (),
        every: int | None = None,
        console: Console | None = None,
    ) -> None:
        self._name, self._num_steps, self._start = name, num_steps, start
        self._metrics = tuple(metrics)
        self._every = every or max(1, num_steps // 50)
        self._console = console or make_console()
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._bar: Progress | None = None

    def __enter__(self) -> "StepProgress":
        if self._console.is_terminal:
            name, status = TextColumn("{task.description}"), TextColumn("{task.fields[status]}")
            self._bar = Progress(name, BarColumn(), MofNCompleteColumn(), status, console=self._console)
            self._bar.add_task(self._name, total=self._num_steps, completed=self._start, status="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, values: Mapping[str, Any], *, seconds: float, tokens: int | None = None) -> None:
        """Report that `step` is done, took `seconds` and processed `tokens`."""
        self._recent.append((seconds, tokens or 0))
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, status=self.status(step, values))
        elif step % self._every == 0 or step == self._num_steps:
            say(self._console, f"{self._name} {step}/{self._num_steps}  {self.status(step, values)}")

    def status(self, step: int, values: Mapping[str, Any]) -> str:
        """`loss/nll 0.693  1,200 tokens/s  0:00:05 left`"""
        names = self._metrics or tuple(values)[:3]
        parts = [f"{name} {values[name]:.4g}" for name in names if values.get(name) is not None]
        seconds, tokens = (sum(column) for column in zip(*self._recent, strict=True))
        if tokens and seconds > 0:
            parts.append(f"{tokens / seconds:,.0f} tokens/s")
        left = round(seconds / len(self._recent) * (self._num_steps - step))
        parts.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left")
        return "  ".join(parts)


def make_console() -> Console:
    """On standard error, and silent but in the first of several processes that torchrun started."""
    return Console(stderr=True, quiet=not is_first())


def say(console: Console, line: str) -> None:
    """Print one line as it is: no wrapping at the width of a terminal that is not there, no markup."""
    console.print(Text(line), soft_wrap=True)
