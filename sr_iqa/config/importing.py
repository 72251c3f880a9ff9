"""Training files of other projects into option files of ours, with an account of every key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..atomic import atomic_write
from ..errors import UsageError, UserError
from .document import Document, KeyPath, NoBlockError, OptionsError
from .import_ledger import Ledger, Line, printable
from .import_text import option_text
from .load import Loaded, validated
from .models import Component, Options
from .toml_text import read_toml_document
from .translate import ADATARGET, REFUSED, translate
from .translate_neosr import MODELS as NEOSR_MODELS
from .translate_neosr import translate_neosr
from .translate_trainner import translate_trainner
from .vocabulary import block_at, suggest_key
from .yaml_text import read_document

PROJECTS = {"basicsr": "BasicSR", "realesrgan": "Real-ESRGAN", "hggt": "HGGT", "trainner": "traiNNer-redux", "neosr": "neosr"}

HGGT_SIGNS = ("PosNegGT", "OneStageDegradation", "TwoStageDegradation", "Ours_", "LDL_", "AdaTarget", "RealESRNet_", "RealESRGAN_")
REALESRGAN_SIGNS = ("RealESRGAN", "RealESRNet")
TRAINNER_KEYS = ("use_amp", "amp_bf16", "fast_matmul", "use_compile", "use_channels_last", "high_order_degradation", "input_pixel_format")


@dataclass(frozen=True)
class Imported:
    """A foreign file in our vocabulary."""

    source: Path
    project: str
    """A key of PROJECTS."""
    loaded: Loaded
    """The options, with the lines of the foreign file."""
    lines: tuple[Line, ...]
    """What became of every key of the file, in its order."""
    text: str
    """The option file."""

    @property
    def lost(self) -> tuple[Line, ...]:
        """What has no counterpart here."""
        return tuple(line for line in self.lines if line.fate == "lost")

    @property
    def report(self) -> tuple[str, ...]:
        """For people: the project, one line per key, and the counts."""
        counts = {fate: sum(line.fate == fate for line in self.lines) for fate in ("mapped", "ignored", "lost")}
        total = f"{self.source}: {counts['mapped']} mapped, {counts['ignored']} ignored, {counts['lost']} without counterpart"
        return (f"{self.source}: read as {PROJECTS[self.project]}", *(printable(str(line)) for line in self.lines), total)


def import_options(path: str | Path, project: str | None = None) -> Imported:
    """Translates a training file of another project.

    Args:
        path: a YAML or TOML file.
        project: a key of PROJECTS; by default what the file looks like.

    Raises:
        UsageError: it is ours already, or nobody's that is known here.
        OptionsError: what in it cannot be read or used, one line each.
    """
    path = Path(path)
    if project is not None and project not in PROJECTS:
        raise UsageError(f"--from {project}: choose from {', '.join(PROJECTS)}")
    document = read_toml_document(path) if path.suffix.lower() == ".toml" else read_document(path)
    if document.problems:
        raise OptionsError(document.problems)
    if _is_ours(document):
        raise UsageError(f"{path} is in this project's vocabulary already; use it as it is, `sr-iqa config check {path}` checks it")
    project = project or detect(document.data, path.suffix.lower() == ".toml")
    if project is None:
        names = ", ".join(PROJECTS.values())
        raise UsageError(f"{path} does not look like a training file of {names}; say whose it is with --from ({', '.join(PROJECTS)})")
    ledger = Ledger.of(document)
    _translate(ledger, project)
    loaded = Loaded(validated(ledger, Options), ledger)
    lines = tuple(ledger.lines())
    lost = [line for line in lines if line.fate == "lost"]
    header = f"Imported from {path.name} ({PROJECTS[project]}). Comments name the line there, and the key where it has another name here."
    return Imported(path, project, loaded, lines, option_text(ledger, loaded.options, lost, header))


def write_imported(imported: Imported, output: Path, force: bool = False) -> None:
    """Writes the option file, all of it or nothing.

    Raises:
        UserError: the file is there already and `force` is not given.
    """
    if output.exists() and not force:
        raise UserError(f"{output} is there already; --force overwrites it")
    with atomic_write(output) as temporary:
        temporary.write_text(imported.text, encoding="utf-8")


def detect(data: dict[str, Any], toml: bool = False) -> str | None:
    """The project whose file this looks like; None for nobody's that is known."""
    datasets = data.get("datasets")
    blocks = [block for block in datasets.values() if isinstance(block, dict)] if isinstance(datasets, dict) else []
    names = [str(name) for name in (data.get("model_type"), *(block.get("type") for block in blocks)) if name is not None]
    train = data.get("train")
    if any(name.startswith(HGGT_SIGNS) for name in names):
        return "hggt"
    if any(name.startswith(REALESRGAN_SIGNS) for name in names):
        return "realesrgan"
    if toml or data.get("model_type") in NEOSR_MODELS or "degradations" in data:
        return "neosr" if blocks or isinstance(train, dict) else None
    if any(key in data for key in TRAINNER_KEYS) or any("lq_size" in block for block in blocks):
        return "trainner"
    if isinstance(train, dict) and "losses" in train:
        return "trainner"
    return "basicsr" if "model_type" in data else None


def _is_ours(document: Document) -> bool:
    try:
        Options.model_validate(document.data)
    except ValidationError:
        return False
    return True


TRANSLATORS: dict[str, Callable[[Ledger], None]] = {"trainner": translate_trainner, "neosr": translate_neosr}


def _translate(ledger: Ledger, project: str) -> None:
    try:
        if project in TRANSLATORS:
            TRANSLATORS[project](ledger)
        _without_counterpart(ledger)
        _silent(ledger)
        translate(ledger)
        _unknown(ledger, ())
    except NoBlockError as error:
        ledger.problem(error.path, "expected a block of keys")


def _without_counterpart(ledger: Ledger) -> None:
    """What plain loading refuses is left out here, and said."""
    for path, reason in REFUSED.items():
        if ledger.get(path) is not None:
            ledger.lost(path, reason)
            for part in ADATARGET if path[-1] == "adatarget_opt" else ():
                if ledger.get(part) is not None:
                    ledger.ignored(part, "it belongs to train.adatarget_opt")


def _silent(ledger: Ledger) -> None:
    """What plain loading drops without a word because it means nothing there."""
    train: KeyPath = ("datasets", "train")
    if ledger.get(("gt_size",)) is not None and ledger.get(("gt_size",)) == ledger.get((*train, "gt_size")):
        ledger.ignored(("gt_size",), "datasets.train.gt_size says the same")
    if not ledger.get(("tile_process",)):
        for name in ("tile_size", "tile_pad"):
            if ledger.get((name,)) is not None:
                ledger.ignored((name,), "tile_process is off")
    for name in ("blur_kernel_size", "blur_kernel_size2"):
        if ledger.get((*train, name)) is not None:
            ledger.ignored((*train, name), "kernels are padded to it there; their sides are drawn from 7 to 21")


def _unknown(ledger: Ledger, path: KeyPath) -> None:
    """Keys that nobody here knows, wherever they stand, but for the arguments of components."""
    model = block_at(path)
    for key in list(ledger.block(path)):
        inner = (*path, key)
        if model is None or model is Component:
            return
        if key not in model.model_fields:
            ledger.lost(inner, f"not known here; {suggest_key(inner)}")
        else:
            _unknown(ledger, inner)
