"""The one exception that stands for a user's mistake, and how commands leave early."""

import signal

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A run that is sent one saves and leaves with 128 + its number. SLURM can send the last ahead of the end."""
EXIT_USER_ERROR = 2


class UserError(ValueError):
    """What is wrong, where, what was given and the way out, in one line.

    The command line prints the line and leaves with `EXIT_USER_ERROR`; any other exception is our bug and keeps
    its traceback.
    """
