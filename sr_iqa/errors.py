"""The one exception that reaches users as a message instead of a traceback, and what damaged files raise before they become one."""

import pickle
import struct

from safetensors import SafetensorError

DAMAGED_FILE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(pickle.UnpicklingError, struct.error, SafetensorError),
)
"""What torch.load and safetensors raise for damaged files (6,000 altered and random ones tried); MemoryError is not among them."""


_CONTROL = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # the last two groups turn text round
_UNPRINTABLE = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROL if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """What a terminal shows as it is and UTF-8 can hold: names of files may have control signs, and bytes that are no text."""
    return text.translate(_UNPRINTABLE).encode(errors="backslashreplace").decode()


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message and exits with 1 (2 for `UsageError`).
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(UserError):
    """Wrong command line or option file; exit code 2."""
