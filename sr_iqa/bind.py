"""Whether a `type:` block fits its constructor, found out from the signature without building anything."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from .config.vocabulary import did_you_mean, expectation

_EMPTY = inspect.Parameter.empty
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


def mismatches(constructor: Callable[..., Any], arguments: Mapping[str, Any], supplied: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """What is wrong with a block's arguments: (argument, message), the argument "" for what is missing.

    Args:
        constructor: class or function that will be called with the arguments.
        arguments: the block without its type.
        supplied: parameters that the program passes itself, such as an optimizer's `params`.
    """
    parameters = _parameters(constructor)
    own = {name: p for name, p in parameters.items() if name not in supplied and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    expected = _expectations(constructor)
    for name, value in arguments.items():
        if name in own:
            message = _type_mismatch(value, expected.get(name), own[name].default)
            if message:
                yield name, message
        elif not takes_any:
            yield name, f"unknown argument; {did_you_mean(name, own) if own else 'it takes none'}"
    missing = [name for name, p in own.items() if p.default is _EMPTY and name not in arguments]
    if missing:
        yield "", f"missing: {', '.join(missing)}"


def argument(constructor: Callable[..., Any], arguments: Mapping[str, Any], names: Iterable[str]) -> tuple[str, Any] | None:
    """The first of the named arguments that the constructor has, with its given or default value; None where it has none of them."""
    parameters = _parameters(constructor)
    for name in names:
        if name in parameters and (name in arguments or parameters[name].default is not _EMPTY):
            return name, arguments.get(name, parameters[name].default)
    return None


def _parameters(constructor: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(constructor).parameters
    except (TypeError, ValueError):  # a few built-in callables have no signature
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _expectations(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Parameter -> annotation; empty where annotations cannot be resolved."""
    try:
        return get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    except (NameError, TypeError):
        return {}


def _type_mismatch(value: Any, annotation: Any, default: Any) -> str | None:
    if annotation is None:
        return _unlike_default(value, default)
    try:  # through JSON, where lists may stand for tuples, yet "no" is no boolean and 1.5 no whole number
        TypeAdapter(annotation, config=_STRICT).validate_json(json.dumps(value))
    except PydanticUserError:  # a type that pydantic knows nothing of
        return None
    except ValidationError as error:
        return f"{expectation(error.errors()[0])}, got {value!r}"
    return None


def _unlike_default(value: Any, default: Any) -> str | None:
    """Without annotations only switches and numbers are told apart."""
    if isinstance(default, bool) and not isinstance(value, bool):
        return f"expected true or false, got {value!r}"
    if isinstance(default, (int, float)) and not isinstance(default, bool) and (isinstance(value, (bool, str))):
        return f"expected a number, got {value!r}"
    return None
