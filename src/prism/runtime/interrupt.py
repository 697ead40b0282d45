"""SIGTERM and Ctrl-C end a stage at the next step boundary, saved."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from prism.runtime.launch import was_started_with_others

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """The run was asked to stop and has saved. Left alone it ends the process with 128 + the signal's number.

    `message` is the one line a user should see.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(128 + signal_number)
        self.signal_number = signal_number
        self.message = message


class InterruptFlag:
    """Within the block, the first SIGTERM or SIGINT only sets `signal_number`; a second ends the process at once, if
    it is the only one of its run.

    Ending at once is safe, like any kill: the run goes on from its last checkpoint. A signal that the
    block did not answer with Interrupted is delivered again when it ends. Outside the main thread,
    where Python handles no signals, the block does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "InterruptFlag":
        try:
            for number in _SIGNALS:
                # None stands for a handler that was not set from Python and cannot be put back.
                self._previous[number] = signal.signal(number, self._handle) or signal.SIG_DFL
        except ValueError:  # raised outside the main thread
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        # Any other error is on its way out already and says more than a signal would.
        if self.signal_number is not None and (kind is None or kind is GeneratorExit):
            os.kill(os.getpid(), self.signal_number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if was_started_with_others() and self.signal_number is not None:
            return  # a terminal and torchrun both pass a signal on; torchrun sees to those that do not end
        if self.signal_number is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal_number = number
        # A plain write: print may be in the middle of its own buffer when a signal arrives.
        os.write(2, b"stopping after this step; a second signal stops at once\n")
