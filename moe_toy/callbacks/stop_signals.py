"""Being asked to stop: Ctrl-C, SIGTERM, and SIGUSR1, which SLURM can send ahead of the end (`--signal=USR1@90`)."""

import logging
import signal
import threading
from types import FrameType

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Remembers that one of SIGNALS came; the second of a kind does what it always did."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, signal.Handlers] = {}

    def listen(self) -> None:
        """In place of any other handler, such as Lightning's own, which would stop within an optimiser step."""
        if threading.current_thread() is not threading.main_thread():
            return  # where Python lets nobody listen
        for number in SIGNALS:
            handler = signal.signal(number, self._remember)
            if handler != self._remember:
                self.before.setdefault(number, handler)

    def ignore(self) -> None:
        """Restore what was there before."""
        while self.before:
            signal.signal(*self.before.popitem())

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        log.warning("%s: stopping after this step; once more stops at once", signal.Signals(number).name)
        if number in self.before:
            signal.signal(number, self.before.pop(number))
