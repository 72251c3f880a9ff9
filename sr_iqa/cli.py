"""Every command of `sr-iqa`: parse, call one function, print. No logic lives here, and nothing heavy is imported until a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sr_iqa.errors import UsageError, UserError, printable

if TYPE_CHECKING:
    from sr_iqa.config import Loaded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Super-resolution training guided by image quality assessment.",
)
data_app = typer.Typer(no_args_is_help=True, help="Check, pack, score and look at data sets.")
iqa_app = typer.Typer(no_args_is_help=True, help="The metrics: list, fetch weights, score images.")
adapter_app = typer.Typer(no_args_is_help=True, help="LoRA adapters: what is inside, merge into a network.")
config_app = typer.Typer(no_args_is_help=True, help="Option files: check, show, import, editor schema.")
for name, group in {"data": data_app, "iqa": iqa_app, "adapter": adapter_app, "config": config_app}.items():
    app.add_typer(group, name=name)

OptFile = Annotated[Path, typer.Option("-opt", "--opt", help="The option file (YAML).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one option; may be repeated.")]
Split = Annotated[str, typer.Option(help="Which data set of the option file: train or val.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; by default the GPU where there is one.")]


def _say(text: str) -> None:
    typer.echo(printable(text))


def _warn(text: str) -> None:
    typer.echo(printable(text), err=True)


def _load(opt: Path, overrides: list[str] | None, network: bool = True) -> Loaded:
    """The checked options, with the network that the starting weights tell of where they name none; notes go to stderr."""
    from dataclasses import replace

    from sr_iqa.check import check
    from sr_iqa.checkpoints import with_network
    from sr_iqa.config import load

    loaded = load(opt, overrides or ())
    if network:
        loaded = replace(loaded, options=with_network(loaded.options))
    for note in (*loaded.notes, *check(loaded)):
        _warn(f"note: {note}")
    return loaded


def _data_options(opt: Path, overrides: list[str] | None, split: str):  # noqa: ANN202 (DataOptions, imported late)
    options = _load(opt, overrides, network=False).options
    data = {"train": options.datasets.train, "val": options.datasets.val}.get(split)
    if data is None:
        raise UsageError(f"{opt}: datasets.{split} is not there; choose --split train or val, whichever the file has")
    return options, data


def _device(name: str) -> str:
    from sr_iqa.modes import pick_device

    try:
        return pick_device(name)
    except UsageError as error:
        raise UsageError(f"--{error}") from error


# ---------------------------------------------------------------- the main job


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Where everything is written.")] = Path("experiments/demo"),
    images: Annotated[Path | None, typer.Option(help="A folder of your own photos instead of the built-in ones.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat every training run with this many seeds.")] = 1,
) -> None:
    """The whole method in minutes on a CPU: make multi-GT data, train eight variants, evaluate, report."""
    from sr_iqa.study.demo import run_demo

    result = run_demo(out_dir, images=images, seeds=seeds, say=_say)
    _say(result.table)
    _say(f"results: {result.results}\nreport:  {result.report}")


@app.command()
def train(
    opt: OptFile,
    set_: Overrides = None,
    fresh: Annotated[bool, typer.Option(help="Archive an earlier run of this name and start at step 0.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved options and exit.")] = False,
) -> None:
    """Train; run the same command again to resume."""
    loaded = _load(opt, set_)
    if dry_run:
        from sr_iqa.config import options_to_yaml

        _say(options_to_yaml(loaded.options))
        return
    from sr_iqa.training.trainer import train as run

    _say(f"done: {run(loaded.options, fresh=fresh)}")


@app.command()
def test(
    opt: OptFile,
    set_: Overrides = None,
    model: Annotated[Path | None, typer.Option("-m", "--model", help="Weights; by default the run's newest.")] = None,
    outputs: Annotated[Path | None, typer.Option(help="Evaluate this folder of SR images instead of a network.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the SR images here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all values here.")] = None,
    device: Device = "auto",
) -> None:
    """Evaluate on datasets.val by the multi-GT protocol (docs/evaluation.md)."""
    from sr_iqa.study.single import run_test

    evaluation = run_test(
        _load(opt, set_).options, model=model, outputs=outputs, save_dir=save, json_file=json_file, device=_device(device)
    )
    _say(evaluation.table())


@app.command()
def compare(
    opt: Annotated[Path, typer.Option("-opt", "--opt", help="The study file (YAML): docs/studies.md.")],
    only: Annotated[list[str] | None, typer.Option(help="Train this variant and no other; may be repeated.")] = None,
    redo: Annotated[list[str] | None, typer.Option(help="Train this variant anew, keeping its old runs; may be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    launch: Annotated[str, typer.Option(help='How runs are launched: "accelerate launch --num_processes 4".')] = "",
    out: Annotated[Path | None, typer.Option(help="The study's folder, instead of experiments_root/name.")] = None,
) -> None:
    """Run a study: train what is missing, evaluate, report; run it again to go on."""
    from dataclasses import replace

    from sr_iqa.study.runner import run_study
    from sr_iqa.study.study_file import load_study

    study = load_study(opt)
    written = run_study(replace(study, root=out) if out else study, only=only or (), redo=redo or (), jobs=jobs, launch=launch, say=_say)
    _say(written.headline)
    _say(f"results: {written.results}\nreport:  {written.report}")


@app.command()
def tradeoff(
    opt: OptFile,
    set_: Overrides = None,
    scales: Annotated[
        str, typer.Option(help="Adapter scales, with commas between them; 0 and 1 are always among them.")
    ] = "0,0.25,0.5,0.75,1",
    model: Annotated[Path | None, typer.Option("-m", "--model", help="Base weights, with --adapter; by default the run's own.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter folder to put on --model; by default the run's newest.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="NAME=WEIGHTS", help="Show this run or weight file too; may be repeated.")
    ] = None,
    dni: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two networks to interpolate between, for comparison.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where everything is written; by default tradeoff/ in the run's folder.")] = None,
    device: Device = "auto",
) -> None:
    """Evaluate an adapter at several scales: the perception-distortion curve, and a page with a slider (docs/tradeoff.md)."""
    from sr_iqa.study.scales import parse_scales
    from sr_iqa.study.tradeoff import Request, parse_against, run_tradeoff

    chosen, others = parse_scales(scales), parse_against(against or ())
    request = Request(_load(opt, set_).options, chosen, model, adapter, others, dni, out, _device(device))
    written = run_tradeoff(request, say=_say)
    _say(written.headline)
    _say(f"results: {written.results}\nreport:  {written.report}")


@app.command()
def infer(
    model: Annotated[Path, typer.Option("-m", "--model", help="Weights (.safetensors, .pth) or a run's folder.")],
    inputs: Annotated[list[str], typer.Option("-i", "--input", help="An image, a folder, or a quoted pattern; may be repeated.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The folder where the results are written.")],
    tile: Annotated[str, typer.Option(help="Side of the tiles in pixels of the input; 0 for whole images; auto.")] = "auto",
    overlap: Annotated[int, typer.Option(min=0, help="Pixels around each tile that the network sees too.")] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Images of one size, or tiles of one image, that go together.")] = 1,
    precision: Annotated[str, typer.Option(help="no (float32), bf16, or on a GPU also tf32 and fp16.")] = "no",
    adapter: Annotated[list[Path] | None, typer.Option(help="A LoRA adapter; several act together.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Put an adapter on other base weights than it was trained on.")] = False,
    weight: Annotated[list[float] | None, typer.Option(help="The weight of each adapter, in their order; 1 by default.")] = None,
    scale: Annotated[str, typer.Option(help="Adapter scale, 0 (base network) to 1; several as 0,0.5,1; auto, with --budget.")] = "1",
    budget: Annotated[str | None, typer.Option(help="With --scale auto: how far from the base network, as psnr:30.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders too.")] = False,
    format_: Annotated[str, typer.Option("--format", help="png, jpg, webp or tif.")] = "png",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")] = 95,
    suffix: Annotated[str, typer.Option(help="Put behind the names of the results, as in _x4.")] = "",
    max_pixels: Annotated[float, typer.Option(help="Larger inputs are refused undecoded.")] = 250e6,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do again what is there already.")] = False,
    compare_: Annotated[bool, typer.Option("--compare", help="Write a page with sliders, too.")] = False,
    device: Device = "auto",
) -> None:
    """Upscale images; run it again to go on (docs/inference.md)."""
    from sr_iqa.adapters import with_scales
    from sr_iqa.inference.budget import parse_dial
    from sr_iqa.inference.folder import upscale_folder
    from sr_iqa.inference.inputs import Naming, parse_folder
    from sr_iqa.inference.plan import parse_tile, plan_folder
    from sr_iqa.inference.upscaler import Upscaler
    from sr_iqa.study.single import load_model

    side, auto = parse_tile(tile, _device(device))
    options = {"recursive": recursive, "auto": auto, "fresh": fresh, "compare": compare_}
    naming = Naming(parse_folder(output), format_, suffix)
    plan = plan_folder(inputs, naming, parse_dial(scale, budget), quality=quality, max_pixels=max_pixels, **options)
    net = load_model(model, adapter=with_scales(adapter or (), weight or (), "--weight") or None, check_base=not force)
    upscaler = Upscaler(net, _device(device), precision, side, overlap, batch)
    _say(f"{upscale_folder(upscaler, plan, say=_warn).done} images written to {output}")


@app.command()
def export(
    model: Annotated[Path, typer.Option("-m", "--model", help="Weights (.safetensors, .pth) or a run's folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write; a model card FILE.md comes beside it.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="pth, safetensors, onnx or torchscript (.pt); by default as the suffix says.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter to merge into the network.")] = None,
    scale: Annotated[float, typer.Option(min=0, max=1, help="Adapter scale: 0 is the base network, 1 the full adapter.")] = 1.0,
    half: Annotated[bool, typer.Option("--half", help="Weights in float16; ONNX and TorchScript then also take and give float16.")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset; 18 by default.")] = None,
    static: Annotated[str | None, typer.Option(metavar="HxW", help="The only size that an ONNX or TorchScript file is to take.")] = None,
    key: Annotated[str | None, typer.Option(help="Of a .pth: params_ema (the default) or params.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Write a network for other programs: Spandrel, chaiNNer, BasicSR, ONNX Runtime; verified before the file appears."""
    from sr_iqa.export import export_network

    made = export_network(
        *(model, output), format=format_, adapter=adapter, scale=scale, half=half, opset=opset, static=static, key=key, force=force
    )
    for line in (*made.checks, *made.notes):
        _say(str(line))
    _say(f"{made.path}\nmodel card: {made.card}")


@app.command()
def doctor(
    opt: Annotated[Path | None, typer.Option("-opt", "--opt", help="Check this option file too, with its stores.")] = None,
    store: Annotated[
        list[Path] | None, typer.Option(help="Compare every image of this store with what was packed; may be repeated.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where runs will be written; by default experiments_root, or here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all findings here.")] = None,
) -> None:
    """Look at the installation and the machine: versions, devices, what works, weights, disk; exit 1 if there is a problem."""
    from sr_iqa.doctor import examine, write_findings

    findings = []
    for finding in examine(folder, opt, store or ()):
        _say(str(finding))
        findings.append(finding)
    if json_file:
        write_findings(findings, json_file)
    problems = sum(finding.state == "PROBLEM" for finding in findings)
    _say(f"{problems or 'no'} problem{'s' if problems != 1 else ''}")
    if problems:
        raise typer.Exit(1)


# ---------------------------------------------------------------- data


@data_app.command("verify")
def data_verify(opt: OptFile, set_: Overrides = None, split: Split = "train") -> None:
    """Find every bad image, size, label and missing file before training does; exit 1 if there is any."""
    from sr_iqa.data.sets import verify

    options, data = _data_options(opt, set_, split)
    problems = verify(data, options.scale)
    for problem in problems:
        _say(str(problem))
    if problems:
        raise UserError(f"{len(problems)} problem(s) in {data.dataroot_gt}")
    _say(f"{data.dataroot_gt}: no problems")


@data_app.command("pack")
def data_pack(
    opt: OptFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="The store to write; must end in .lmdb.")],
    codec: Annotated[str, typer.Option(help="raw, or deflate: 0.4 of the size, crops take 40 times as long (2 ms).")] = "raw",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one per core by default.")] = None,
    set_: Overrides = None,
    split: Split = "train",
) -> None:
    """Pack a data set into one LMDB store from which crops are read without decoding images; given again after a kill, it goes on."""
    from sr_iqa.data.packing import pack
    from sr_iqa.data.sets import crop_side

    options, data = _data_options(opt, set_, split)
    count = pack(data, output, scale=options.scale, smallest=crop_side(data), codec=codec, workers=workers)
    _say(f"{count} sets packed into {output}")


@data_app.command("score")
def data_score(
    opt: OptFile,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The score table to write (Parquet).")] = None,
    set_: Overrides = None,
    split: Split = "train",
    metric: Annotated[str | None, typer.Option(help="By default datasets.train.sampling.metric.")] = None,
    device: Device = "auto",
    crops: Annotated[bool, typer.Option("--crops", help="Fill amo's memory (sampling.grid) instead: choose for every crop ahead.")] = False,
) -> None:
    """Score every GT of every set with a no-reference metric; resumable, and shared by processes under accelerate launch."""
    from sr_iqa.iqa.crop_scores import score_all_crops
    from sr_iqa.iqa.scores import score_data

    if crops:
        options = _load(opt, set_).options
        _say(score_all_crops(options, device=_device(device)))
        return
    options, data = _data_options(opt, set_, split)
    name = metric or (options.datasets.train.sampling.metric if options.datasets.train else None)
    if name is None:
        raise UsageError("no metric: give --metric or datasets.train.sampling.metric")
    if output is None:
        raise UsageError("no table to write: give -o scores.parquet (or --crops)")
    _say(f"{score_data(data, name, output, device=_device(device))} images scored; table: {output}")


@data_app.command("stats")
def data_stats(opt: OptFile, set_: Overrides = None, split: Split = "train") -> None:
    """Counts: sets, GTs, sizes, effective labels, sets without a positive."""
    from sr_iqa.data.sets import statistics

    _, data = _data_options(opt, set_, split)
    for key, value in statistics(data).items():
        _say(f"{key}: {value}")


@data_app.command("show")
def data_show(
    opt: OptFile,
    n: Annotated[int, typer.Option("--n", min=0, max=2**62, help="Sample number.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")] = Path("sample.png"),
    set_: Overrides = None,
) -> None:
    """Write a picture of training sample n: its LQ, its GTs, and every drawn parameter."""
    from sr_iqa.study.single import show_sample

    for key, value in show_sample(_load(opt, set_).options, n, output).items():
        _say(f"{key}: {value}")
    _say(f"picture: {output}")


@data_app.command("demo")
def data_demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write train/ and heldout/ to.")],
    images: Annotated[Path | None, typer.Option(help="A folder of your own photos.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="Photos to hold out; without it a quarter of at most 16 photos.")] = None,
    patches: Annotated[int, typer.Option(min=1, help="Patches per photo, at most.")] = 12,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Make multi-GT sets in HGGT layout from photos, as the demo does."""
    from sr_iqa.data.demo import make_demo_sets

    made = make_demo_sets(output, images, seed, heldout, patches)
    _say(f"{made.train_sets} training sets of {len(made.train_photos)} photos: {made.train}")
    _say(f"{made.heldout_sets} held-out sets of {len(made.heldout_photos)} photos: {made.heldout}")


# ---------------------------------------------------------------- metrics


@iqa_app.command("list")
def iqa_list(
    filter_: Annotated[
        str, typer.Argument(metavar="FILTER", help='Only names containing this, or an ensemble ("musiq + nima"), or a metric\'s file.')
    ] = "",
) -> None:
    """Every metric: mode, direction, range, whether it can be a loss, whether its weights are here, and what it needs or why it is refused.

    Ensembles and trained metrics go by what they are, wherever a name is taken: 0.5*musiq + 0.5*nima, min(...), rank(...), agree(...), an
    ensemble's .yml, a metric's .safetensors.
    """
    from sr_iqa.iqa.metrics import find_metrics

    rows = [("name", "mode", "better", "range", "differentiable", "weights", "needs")]
    for info in find_metrics(filter_):
        low, high = info.value_range
        better, learns = "lower" if info.lower_better else "higher", "yes" if info.differentiable else "no"
        rows.append((info.name, info.mode, better, f"{low:g} .. {high:g}", learns, info.weights, info.needs))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@iqa_app.command("fetch")
def iqa_fetch(metric: str) -> None:
    """Download a metric's weights: the only command that uses the network."""
    from sr_iqa.iqa.metrics import fetch_weights

    for path in fetch_weights(metric):
        _say(str(path))


@iqa_app.command("normalise")
def iqa_normalise(
    ensemble: Annotated[str, typer.Argument(help='"0.5*musiq + 0.5*nima", min(...), rank(...), agree(...), or an ensemble\'s .yml.')],
    inputs: Annotated[list[Path], typer.Argument(help="Reference images or folders, like those that will be scored.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ensemble's file, .yml.")],
    device: Device = "auto",
) -> None:
    """Give an ensemble statistics: mean, spread and quantiles of each member on reference images."""
    from sr_iqa.iqa.ensemble_file import normalise

    _say(normalise(ensemble, inputs, output, _device(device)))


@iqa_app.command("score")
def iqa_score(
    inputs: Annotated[list[Path], typer.Argument(help="Images or folders.")],
    metric: Annotated[list[str], typer.Option("--metric", help="A no-reference metric; may be repeated.")],
    device: Device = "auto",
) -> None:
    """Score images; prints tab-separated lines."""
    from sr_iqa.iqa.scores import score_files

    for k, (path, values) in enumerate(score_files(inputs, metric, device=_device(device))):
        if k == 0:
            _say("\t".join(("image", *metric)))
        _say("\t".join((str(path), *(f"{value:.4f}" for value in values))))


@iqa_app.command("import")
def iqa_import(
    kind: Annotated[str, typer.Argument(help="hggt, diffiqa, sriqa, kadid, pipal, tid2013, koniq, or csv for any table.")],
    root: Annotated[Path, typer.Argument(help="The data set's folder; for csv the table.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The manifest to write: .csv or .parquet.")],
    on_bad: Annotated[str, typer.Option(help="stop at what cannot be used, or skip it.")] = "stop",
    votes: Annotated[str, typer.Option(help="hggt, diffiqa: p_a of the majority, or the mean over annotators.")] = "majority",
    derived: Annotated[bool, typer.Option("--derived", help="diffiqa: pair the enhanced images too, by their labels.")] = False,
    list_: Annotated[
        list[Path] | None, typer.Option("--list", help="diffiqa: read these triplet lists instead of the labels; may be repeated.")
    ] = None,
    per_content: Annotated[
        int | None, typer.Option(min=0, help="Opinion scores: at most so many pairs of a scene; 0 for all. By default 500, sriqa all.")
    ] = None,
    least_gap: Annotated[float | None, typer.Option(min=0, help="Opinion scores: leave out pairs that lie closer.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the pairs that are drawn.")] = 0,
    references: Annotated[
        bool, typer.Option("--references", help="kadid, pipal, tid2013: pair each image with its reference too, which wins.")
    ] = False,
    mos_column: Annotated[str, typer.Option(help="koniq: MOS (1 to 5) or MOS_zscore.")] = "MOS",
    block: Annotated[int, typer.Option(help="koniq: images that are paired with each other.")] = 20,
    columns: Annotated[str, typer.Option(help="csv: which column is which, img_a=left,img_b=right,p_a=choice.")] = "",
    words: Annotated[str, typer.Option(help="csv: what words in p_a mean, left=1,right=0,same=0.5.")] = "",
    separator: Annotated[str, typer.Option(help="csv: between the values.")] = ",",
    images: Annotated[Path | None, typer.Option(help="csv: the folder that paths are relative to; by default the table's.")] = None,
) -> None:
    """Human preferences of a published data set as one manifest of pairs (docs/iqa.md)."""
    from sr_iqa.preferences.readers import ImportOptions, import_preferences
    from sr_iqa.preferences.table import table_rule

    options = ImportOptions(
        votes=votes,  # pyright: ignore[reportArgumentType]
        derived=derived,
        lists=tuple(list_ or ()),
        per_content=per_content,
        least_gap=least_gap,
        seed=seed,
        references=references,
        mos_column=mos_column,
        block=block,
        table=table_rule(columns, words, separator, images),
    )
    for line in import_preferences(kind, root, output, options, on_bad, say=_warn).lines:  # pyright: ignore[reportArgumentType]
        _say(line)
    _say(f"manifest: {output}")


@iqa_app.command("distort")
def iqa_distort(
    photos: Annotated[Path, typer.Argument(help="A folder of photos.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for images and manifest.")],
    kinds: Annotated[str, typer.Option(help="Only these kinds of distortion, with commas between them; by default all.")] = "",
    levels: Annotated[str, typer.Option(help="Which levels to pair; 0 is the photo itself.")] = "0,1,2,3,4,5",
    crop_px: Annotated[int, typer.Option(min=16, help="Side of the square cut from the middle of each photo.")] = 256,
    count: Annotated[int | None, typer.Option(min=1, help="Only the first so many photos.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Synthetic pairs with known orderings: photos, distorted in known ways, as a manifest (docs/iqa.md)."""
    from sr_iqa.lab.synthetic import Synthetic, make_synthetic, parse_kinds, parse_levels

    _say(str(make_synthetic(Synthetic(photos, output, parse_kinds(kinds), parse_levels(levels), crop_px, count, seed))))


@iqa_app.command("train")
def iqa_train(
    opt: OptFile,
    set_: Overrides = None,
    fresh: Annotated[bool, typer.Option(help="Archive an earlier run of this name and start at step 0.")] = False,
) -> None:
    """Train a metric on pairs that people have compared (docs/iqa.md); run the same command again to resume."""
    from sr_iqa.config.metric_models import load_metric_options
    from sr_iqa.training.metric_check import check_metric
    from sr_iqa.training.metric_trainer import train_metric

    loaded = load_metric_options(opt, set_ or ())
    check_metric(loaded)
    _say(f"done: {train_metric(loaded.options, fresh=fresh)}")


Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Pairs of images and what people said: .csv or .parquet.")]
Metrics = Annotated[str, typer.Option(help='Names with commas between them, ensembles ("0.5*musiq + 0.5*nima") and files too; or all.')]
Scores = Annotated[
    list[Path] | None, typer.Option(help="Scores of metrics from elsewhere: a CSV table image,NAME[,NAME...]; may be repeated.")
]
LowerBetter = Annotated[list[str] | None, typer.Option(help="A column of --scores in which lower is better; may be repeated.")]


@iqa_app.command("agree")
def iqa_agree(
    manifest: Manifest,
    metrics: Metrics = "",
    scores: Scores = None,
    lower_better: LowerBetter = None,
    screen: Annotated[int | None, typer.Option(help="Two phases: all metrics on so many pairs first.")] = None,
    best: Annotated[int, typer.Option(help="How many metrics the second phase keeps.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Of the splits by contents.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write a table here, a row for each metric and group.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    device: Device = "auto",
) -> None:
    """How well metrics agree with people, on pairs of images (docs/iqa.md)."""
    from sr_iqa.lab.judges import Request, judge
    from sr_iqa.lab.page import write_page
    from sr_iqa.lab.results import text, write_csv, write_json

    request = Request(manifest, metrics, tuple(scores or ()), tuple(lower_better or ()), screen, best, seed, _device(device))
    verdict = judge(request, say=_warn)
    for path, write in ((json_file, write_json), (csv_file, write_csv), (html, write_page)):
        if path:
            write(verdict, path)
    _say(text(verdict))


@iqa_app.command("complement")
def iqa_complement(
    manifest: Manifest,
    metrics: Metrics = "",
    scores: Scores = None,
    lower_better: LowerBetter = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split by contents.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    device: Device = "auto",
) -> None:
    """Which metrics make up for each other's mistakes: errors in common, the best two and three together (docs/iqa.md)."""
    from sr_iqa.lab.judges import Request, judge
    from sr_iqa.lab.page import write_page
    from sr_iqa.lab.results import together_text, write_json

    foreign, lower = tuple(scores or ()), tuple(lower_better or ())
    request = Request(manifest, metrics, foreign, lower, seed=seed, device=_device(device), together=True)
    verdict = judge(request, say=_warn)
    for path, write in ((json_file, write_json), (html, write_page)):
        if path:
            write(verdict, path)
    _say(together_text(verdict))


# ---------------------------------------------------------------- adapters


@adapter_app.command("info")
def adapter_info(adapter: Path) -> None:
    """What an adapter, a folder or a single file, says about itself."""
    from sr_iqa.adapters import describe_adapter

    for key, value in describe_adapter(adapter).items():
        _say(f"{key}: {value}")


@adapter_app.command("merge")
def adapter_merge(
    adapters: Annotated[list[Path], typer.Argument(help="One adapter, or several that are added up.")],
    model: Annotated[Path, typer.Option("-m", "--model", help="The base network's weights.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The merged weights to write (.safetensors).")],
    scale: Annotated[list[float] | None, typer.Option(help="The scale of each adapter, in their order; 1 by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Merge into other base weights than the adapter was trained on.")] = False,
) -> None:
    """Fold adapters into their base network: plain weights that any tool loads."""
    from sr_iqa.adapters import with_scales
    from sr_iqa.inference import merge_adapters

    merge_adapters(model, with_scales(adapters, scale or (), "--scale"), output, check_base=not force)
    _say(f"merged weights: {output}")


@adapter_app.command("convert")
def adapter_convert(
    adapter: Path, output: Annotated[Path, typer.Option("-o", "--output", help="A name ending in .safetensors, or of a folder.")]
) -> None:
    """Write PEFT's folder as one .safetensors file, or such a file as a folder."""
    from sr_iqa.adapters import convert_adapter

    convert_adapter(adapter, output)
    _say(f"adapter: {output}")


# ---------------------------------------------------------------- options


@config_app.command("check")
def config_check(files: Annotated[list[Path], typer.Argument()], set_: Overrides = None) -> None:
    """Check option files of runs, metrics and studies, HGGT's and BasicSR's training files included; prints what is ignored."""
    from sr_iqa.study.option_file import check_option_file

    failed = 0
    for path in files:
        try:
            for note in check_option_file(path, set_ or ()):
                _warn(f"note: {note}")
            _say(f"{path}: ok")
        except UserError as error:
            _warn(str(error))
            failed += 1
    if failed:
        raise typer.Exit(2)


@config_app.command("import")
def config_import(
    file: Annotated[Path, typer.Argument(help="A training file of BasicSR, Real-ESRGAN, HGGT, traiNNer-redux (YAML) or neosr (TOML).")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The option file to write; by default it is printed.")] = None,
    project: Annotated[str | None, typer.Option("--from", help="basicsr, realesrgan, hggt, trainner, neosr; by default found out.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail, and write nothing, if anything has no counterpart here.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Turn another project's training file into an option file; says what became of every key."""
    from sr_iqa.check import check
    from sr_iqa.config.importing import import_options, write_imported

    imported = import_options(file, project)
    notes = check(imported.loaded)
    for line in (*imported.report, *(f"note: {note}" for note in notes)):
        _warn(line)
    if strict and imported.lost:
        raise UserError(f"--strict: {len(imported.lost)} keys have no counterpart, nothing is written")
    if output is None:
        _say(imported.text)
    else:
        write_imported(imported, output, force)
        _say(f"written: {output}")


@config_app.command("show")
def config_show(opt: OptFile, set_: Overrides = None) -> None:
    """Print the resolved options of a run or of a metric, every default included."""
    from sr_iqa.config import options_to_yaml
    from sr_iqa.study.option_file import checked_options

    options, notes = checked_options(opt, set_ or ())
    for note in notes:
        _warn(f"note: {note}")
    _say(options_to_yaml(options))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema for editors (committed as options/schema.json)."""
    from sr_iqa.config.schema import schema_text

    _say(schema_text())


def main() -> None:
    """Entry point: user errors become one or two lines; `--debug` (or SR_IQA_DEBUG=1) shows the traceback."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    sys.path.append(str(Path.cwd()))  # dotted paths in option files may name the user's own modules
    try:
        app(args=[a for a in arguments if a != "--debug"], standalone_mode=True)
    except UserError as error:
        if debug:
            raise
        _warn(f"error: {error}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        if debug:
            raise
        _warn(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        sys.exit(1)
