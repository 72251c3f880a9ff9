"""Text files and CSV tables from elsewhere: read whole, in UTF-8 with or without a byte-order mark, with any line ends."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from sr_iqa.errors import UserError

MAX_TEXT_BYTES = 1 << 30


def read_text(path: Path) -> str:
    """The whole text. Raises UserError where it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path}: is no file")
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise UserError(f"{path}: a text of more than {MAX_TEXT_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def text_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, line) of a text, without empty lines. Raises UserError where it cannot be read."""
    return [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]


def csv_table(path: Path, separator: str = ",") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(head, [(line number, values)]) of a CSV table, without empty lines and without the spaces around values. Raises UserError."""
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"{path}: no CSV table ({error})") from error
    return (rows[0][1], rows[1:]) if rows else ([], [])
