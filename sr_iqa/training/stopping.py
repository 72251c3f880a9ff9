"""Ending a run in good order: a signal is remembered, the step is finished, everything is saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

from ..distributed import Agreement, world_size

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""SIGUSR1 is what SLURM jobs are usually told of their end with (--signal=USR1@60)."""
SAME_REQUEST_S = 5.0
"""Ctrl-C and SLURM signal a launcher and its processes, and the launcher passes on what they have had already: one request."""
ASK_EVERY = 8
"""Steps between two questions to the other processes whether one of them has been told to stop."""


class StopRequested(Exception):
    """Raised between steps, or inside a validation, after a signal."""


class Stop:
    """Turns SIGNALS into a flag while the context lasts. A second one acts at once, as it would have without us."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._agreement = Agreement()
        self._parent = os.getppid()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 143 after SIGTERM, 130 after SIGINT, 138 after SIGUSR1."""
        return 128 + (self.signal or signal.SIGTERM)

    def check(self, step: int) -> None:
        """Raises StopRequested in every process, at the same step, when one of them has been told to stop or has lost its launcher."""
        if world_size() == 1:
            asked = self.signal is not None
        elif step % ASK_EVERY == 0:
            asked = self._agreement.any(self.signal is not None or os.getppid() != self._parent)
        else:
            asked = False
        if asked:
            raise StopRequested

    def check_alone(self, *_: object) -> None:
        """For use inside a validation (as a forward hook): several processes could not agree there, so they finish it first."""
        if world_size() == 1:
            self.check(0)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif world_size() == 1 or time.monotonic() - self._since > SAME_REQUEST_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}
