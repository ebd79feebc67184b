"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """What is wrong, where, what was given and the way out, in one line.

    The command line prints the line and leaves with exit code 2; any other exception is our bug and keeps
    its traceback.
    """
