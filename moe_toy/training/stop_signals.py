"""Being asked to stop: Ctrl-C, SIGTERM, and SIGUSR1, which SLURM can send ahead of the end (`--signal=USR1@90`)."""

import logging
import signal
import threading
from types import FrameType

from moe_toy.errors import STOP_SIGNALS

log = logging.getLogger(__name__)


class StopSignals:
    """Remembers the first of `STOP_SIGNALS` that comes; the same once more ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def listen(self) -> None:
        """In place of Lightning's handlers, which would stop within an optimiser step. Lightning restores those that
        were there before its own when it is done."""
        if self.received is None and threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        log.warning("%s: stopping after this step; once more stops at once", signal.Signals(number).name)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
