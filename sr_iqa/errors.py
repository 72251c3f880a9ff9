"""The one exception that reaches users as a message instead of a traceback."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message and exits with 1 (2 for `UsageError`).
    """


class UsageError(UserError):
    """Wrong command line or option file; exit code 2."""
