"""Questions about the option models themselves: which keys exist where, and which one was probably meant."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from .document import KeyPath, dotted
from .models import Component, Options


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like a misspelt name; None where nothing is like it."""
    by_case = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return by_case[found[0]] if found else None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest choice, or all of them."""
    names = sorted(choices)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"known here: {', '.join(names)}"


_PYDANTIC_WORDS = {
    "Input should be": "expected",
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
    "a valid array": "a list",
    "Field required": "too few values",
}


def expectation(error: ErrorDetails) -> str:
    """What pydantic wanted, in the words of an option file."""
    if error["type"] == "path_type":
        return "expected a path"
    text = error["msg"].split(", unable to")[0].split(", got")[0]
    for theirs, ours in _PYDANTIC_WORDS.items():
        text = text.replace(theirs, ours)
    return text


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The option blocks that an annotation allows: X | None, tuple[X, ...], Annotated[X, ...]."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from models_in(inner)


def block_at(path: KeyPath, root: type[BaseModel] = Options) -> type[BaseModel] | None:
    """The model of the block at a key path; list indices are looked through. None where no block belongs there."""
    model: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = next(models_in(field.annotation), None) if field else None
    return model


@cache
def all_keys(root: type[BaseModel] = Options) -> tuple[KeyPath, ...]:
    """Every key of the vocabulary, or of another kind of file."""

    def walk(model: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
        for name, field in model.model_fields.items():
            yield (*path, name)
            for inner in models_in(field.annotation):
                if inner is not Component:
                    yield from walk(inner, (*path, name))

    return tuple(walk(root, ()))


def suggest_key(path: KeyPath, root: type[BaseModel] = Options) -> str:
    """What to say about a key that its block does not know: a near name there, the same name elsewhere, or the known names."""
    *parent, name = path
    block = block_at(tuple(parent), root)
    names = tuple(block.model_fields) if block else ()
    near = nearest(str(name), names)
    if near:
        return f"did you mean {near}?"
    elsewhere = [dotted(key) for key in all_keys(root) if key[-1] == name]
    if elsewhere:
        return f"it belongs at {' or '.join(elsewhere)}"
    return f"known here: {', '.join(sorted(names))}" if names else "no block of options belongs here"
