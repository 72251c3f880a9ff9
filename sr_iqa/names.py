"""From a name to a thing: an entry of a visible table, anything importable at a dotted path, the version of a package."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .errors import UsageError


def find(kind: str, name: str, table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The entry of a table, or the object at a dotted path such as `my_package.nets.Net`.

    Args:
        kind: what is looked for, for the message: "network", "loss".
        name: as written by the user.
        table: the known names.

    Raises:
        UsageError: unknown; lists the choices and the nearest of them.
    """
    if name in table:
        return table[name]
    if "." in name:
        return import_dotted(kind, name)
    raise UsageError(f"{unknown(kind, name, table)} Or give the dotted path of your own.")


def package_version(name: str) -> str | None:
    """The version of an installed package; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """The message for a name that is none of the choices."""
    choices = list(dict.fromkeys(choices))
    folded = {choice.lower(): choice for choice in reversed(choices)}
    nearest = difflib.get_close_matches(name.lower(), folded, n=1)
    hint = f" Did you mean '{folded[nearest[0]]}'?" if nearest else ""
    return f"'{name}' is not a {kind}.{hint} Choose from {', '.join(choices)}."


def import_dotted(kind: str, path: str) -> Callable[..., Any]:
    """The class or function at `package.module.name`."""
    module, _, attribute = path.rpartition(".")
    try:
        found = vars(importlib.import_module(module))[attribute]
    except (ImportError, TypeError, ValueError) as error:  # the last two: ".a", "a..b"
        raise UsageError(f"'{path}' is not a {kind}: importing {module} failed: {error}") from error
    except KeyError:
        raise UsageError(f"'{path}' is not a {kind}: {module} has no '{attribute}'.") from None
    if not callable(found):
        raise UsageError(f"'{path}' is not a {kind}: it cannot be called.")
    return found
