"""The one exception that stands for a user's mistake, and how a command then leaves."""

EXIT_USER_ERROR = 2


class UserError(ValueError):
    """What is wrong, where, what was given and the way out, in one line.

    The command line prints the line and leaves with `EXIT_USER_ERROR`; any other exception is our bug and keeps
    its traceback.
    """
