"""Ensembles as they are written: `0.5*musiq + 0.3*nima`, `min(musiq, nima)`, `rank(...)`, `agree(...)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sr_iqa.errors import UserError

from .catalog import CATALOG

Kind = Literal["sum", "min", "rank", "agree"]
KINDS: tuple[str, ...] = get_args(Kind)
MOST_MEMBERS = 8
LONGEST = 400
"""Letters of an ensemble's text."""
TRAINED = ".safetensors"
_TERM = re.compile(r"\s*(?:(-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*\*\s*)?([^\s*,()]+)\s*")
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.S)


@dataclass(frozen=True)
class Recipe:
    """An ensemble as it is written."""

    kind: Kind
    members: tuple[tuple[str, float], ...]
    """(metric, weight), in order: names of the catalogue or files of trained metrics."""

    @property
    def names(self) -> tuple[str, ...]:
        """The members without their weights."""
        return tuple(name for name, _ in self.members)


def is_trained(name: str) -> bool:
    """Whether the name of a metric is a file of a trained one."""
    return name.endswith(TRAINED) and not is_composed(name)


def is_file(name: str) -> bool:
    """Whether it is an ensemble's file."""
    return Path(name).suffix.lower() in (".yml", ".yaml")


def is_composed(name: str) -> bool:
    """Whether it is an ensemble, as a text or as a file."""
    if name in CATALOG:
        return False
    return is_file(name) or "*" in name or " + " in name or bool(_CALL.fullmatch(name)) or len(_sum(name.split("+")) or ()) > 1


def split_names(text: str) -> list[str]:
    """The metrics of a list with commas, of which those inside parentheses belong to an ensemble: "a, min(b, c)" -> ["a", "min(b, c)"]."""
    names, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    return [name.strip() for name in names if name.strip()]


def parse_ensemble(text: str) -> Recipe:
    """An ensemble's text as a recipe. Raises UserError that says what is wrong with it."""
    if len(text) > LONGEST:
        raise UserError(f"an ensemble's text of {len(text)} letters; write it as a file instead (docs/metrics.md)")
    call = _CALL.fullmatch(text)
    parts = split_names(call[2]) if call else _sum(text.split("+")) or text.split("+")  # the last for a name that is wrong
    terms = [_term(part, text) for part in parts]
    return recipe(_kind(call[1], text) if call else "sum", terms, f"ensemble {text!r}")


def recipe(kind: Kind, terms: list[tuple[str, float]], source: str) -> Recipe:
    """Checked for what any ensemble must be. Raises UserError that begins with `source`."""
    names = [name for name, _ in terms]
    if len(terms) < 2 or len(terms) > MOST_MEMBERS:
        raise UserError(f"{source} has {len(terms)} member(s); it needs 2 to {MOST_MEMBERS}")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{source} has {doubled[0]} twice; give it once, with the sum of the weights")
    if composed := [name for name in names if is_composed(name)]:
        raise UserError(f"{source}: its member {composed[0]} is an ensemble itself")
    if not all(0 < weight < float("inf") for _, weight in terms):
        raise UserError(f"{source}: weights must be positive (a member's direction is known: lower-is-better metrics are turned round)")
    if kind == "min" and any(weight != 1 for _, weight in terms):
        raise UserError(f"{source}: the least of scores has no weights")
    return Recipe(kind, tuple(terms))


def _kind(word: str, text: str) -> Kind:
    if word not in KINDS or word == "sum":
        raise UserError(f"ensemble {text!r}: there is no {word}(...); choose from min, rank, agree, or write a sum, 0.5*musiq + 0.5*nima")
    return word  # pyright: ignore[reportReturnType]


def _term(text: str, whole: str) -> tuple[str, float]:
    """One member with its weight, 1 if none is written."""
    found = _TERM.fullmatch(text)
    if not found and _CALL.fullmatch(text):
        raise UserError(f"ensemble {whole!r}: its member {text.strip()} is an ensemble itself")
    if not found:
        raise UserError(f"ensemble {whole!r}: {text.strip()!r} is no metric, nor a weight and a metric such as 0.5*musiq")
    return found[2], float(found[1] or 1)


def _sum(parts: list[str]) -> list[str] | None:
    """The terms of a sum that was split at every plus sign, put together again where the sign belongs to a name (clipiqa+).

    None where that gives no terms of known metrics.
    """
    if not parts:
        return []
    for k in range(1, len(parts) + 1):
        term = "+".join(parts[:k])
        if _is_known(term) and (rest := _sum(parts[k:])) is not None:
            return [term, *rest]
    return None


def _is_known(term: str) -> bool:
    found = _TERM.fullmatch(term)
    return found is not None and (found[2] in CATALOG or found[2].endswith(TRAINED))
