"""Stopping a training by SIGINT (Ctrl-C) or SIGTERM without losing what it has learned."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A signal has stopped the training; its state is saved.

    Attributes:
        exit_code: 128 plus the signal's number: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class StopRequest:
    """While in use, records a signal instead of ending the program.

    Outside the main thread, where Python does not allow signal handlers, it records nothing.

    Args:
        insist: a second SIGINT has its usual effect. Not for the processes of torchrun, which
            may pass on one Ctrl-C twice, and ends processes that take too long.
    """

    def __init__(self, insist: bool) -> None:
        self.signal_number = 0
        self._insist = insist
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or number
        if self._insist:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
