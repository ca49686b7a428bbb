"""Held-out thin scans, thickened, restored with every method, and scored."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ctinterp_dagster.cli.adding import given_for
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.evaluation.metrics import Scores
from ctinterp_dagster.evaluation.statistics import Interval, compare, summarise, task_name
from ctinterp_dagster.interpolation import (
    RELEASED,
    Aligned,
    MixedPrecision,
    Settings,
    aligned,
    load_checkpoint,
    thicken,
)
from ctinterp_dagster.params import Baseline, Profile
from ctinterp_dagster.pipeline.cases import REAL
from ctinterp_dagster.pipeline.scoring import score_aligned, synthetic
from ctinterp_dagster.records import write_json
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import read_scan

LEARNED = ("regression", "model")
METHODS = (*get_args(Baseline), *LEARNED)
MEANS = {"psnr_db": 2, "psnr_soft_db": 2, "ssim": 4, "mae_hu": 1}
GAINS = ("psnr_db", "psnr_soft_db")
WIDTH = 170
FIELDS = (
    "psnr_db", "psnr_rplhr_db", "psnr_soft_db", "ssim", "ssim_3d", "mae_hu", "residual_hu", "noise_floor_db",
)  # fmt: skip


def parse_methods(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split a,b,c and refuse unknown names."""
    names = tuple(value.split(","))
    for name in names:
        if name not in METHODS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}")
    return names


@click.command(epilog="Example: ctinterp evaluate held_out/*.nii.gz --methods cubic,model --json scores.json")
@click.argument("thin", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="THICK THIN",
    help="a real thick scan and the thin one that it is to be restored to; may be repeated",
)
@click.option("--factor", type=click.IntRange(min=2), default=5, show_default=True, help="thin slices a thick one")
@click.option("--profile", type=click.Choice(get_args(Profile)), default="box", show_default=True)
@click.option("--thin-thickness", "thin_mm", type=click.FloatRange(min=0, min_open=True),
              help="thickness in mm of THIN's slices, where they overlap: the model's then do")  # fmt: skip
@click.option("--model", "model_path", type=click.Path(path_type=Path), default=RELEASED, help="model [released]")
@click.option("--methods", callback=parse_methods, default=",".join(METHODS), help="which, with commas [all]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--memory-gib", type=click.FloatRange(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--mixed-precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True,
              help="bf16 is faster on processors and GPUs with instructions for it")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write the records as JSON")
def command(
    *,
    thin: tuple[Path, ...],
    pairs: tuple[tuple[Path, Path], ...],
    factor: int,
    profile: Profile,
    thin_mm: float | None,
    model_path: Path,
    methods: tuple[str, ...],
    device: str,
    memory_gib: float,
    mixed_precision: MixedPrecision,
    json_path: Path | None,
) -> None:
    """Score every method on THIN volumes that the model has not seen.

    Each is thickened, restored, and compared with itself; a real thick scan is compared with its thin partner, by
    position in mm. `psnr_db` is in the window [-1000, 1000] HU with FACTOR
    slices dropped at each end. Research use only, not a medical device.
    """
    if not thin and not pairs:
        raise click.UsageError("give THIN volumes or --pair THICK THIN")
    for paths in (thin, tuple(thick for thick, _ in pairs)):
        if len(set(map(case_name, paths))) < len(paths):
            raise click.UsageError("two of the scans have the same name: give each once, or rename one")
    if json_path and not json_path.absolute().parent.is_dir():
        raise MissingInputError(f"the folder {json_path.parent} does not exist: make it first")
    model = load_checkpoint(model_path, device) if set(methods) & set(LEARNED) else None
    baselines = tuple(name for name in methods if name not in LEARNED)
    settings = Settings(memory_gib=memory_gib, mixed_precision=mixed_precision)
    learned = {name: replace(settings, mirror=name == "model") for name in methods if name in LEARNED}
    if model and not model.starts_from_regression and learned.pop("regression", None) and methods != METHODS:
        raise click.UsageError(f"{model_path} does not start from a regression: leave it out of --methods")
    records: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("scoring", total=(len(thin) + len(pairs)) * len(methods))
        for path, task_profile, scans in tasks(thin, pairs, factor, profile, thin_mm):
            progress.update(task, description=path.name)
            models = {name: model.means(scans.thick.spacing_mm, how) for name, how in learned.items()} if model else {}
            labels = {"case": case_name(path), "factor": scans.factor, "profile": task_profile}
            for scored in score_aligned(scans, baselines=baselines, models=models):
                costs = {"seconds": scored.seconds, "peak_rss_mib": scored.peak_rss_mib}
                records.append({**labels, "method": scored.method, **fields_of(scored.scores), **costs})
                progress.advance(task)
    if json_path:
        write_json(json_path, records)
    show(records)


def tasks(
    thin: tuple[Path, ...], pairs: tuple[tuple[Path, Path], ...], factor: int, profile: Profile, thin_mm: float | None
) -> Iterator[tuple[Path, str, Aligned]]:
    """Each thick scan with its truth: the path that names it, the profile, the scans."""
    for path in thin:
        truth = read_scan(path).volume
        yield path, profile, synthetic(truth, thicken(truth, factor, profile), factor, profile, thin_mm)
    for thick_path, thin_path in pairs:
        thick = read_scan(thick_path)
        yield thick_path, REAL, aligned(thick.volume, read_scan(thin_path).volume, thick.thickness_mm)


def case_name(path: Path) -> str:
    """A file's name without the ending of its format if an index beside it lists it, else a pseudonym of its place."""
    listed = any(row["file"] == path.name for row in given_for(path, path.name)) and path.is_file()
    return (path.name.split(".")[0] or path.name) if listed else pseudonym(str(path.resolve()), load_key(), "s")


def fields_of(scores: Scores) -> dict[str, float | None]:
    """The metrics of a record."""
    return {name: getattr(scores, name) for name in FIELDS}


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    done = ", ".join(sorted({task_name(r["profile"], r["factor"]) for r in records}))
    table = Table(title=f"{done}, {torch.get_num_threads()} threads")
    scores = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")
    for name in ("case", "method", *scores, "noise floor dB", "seconds", "peak MiB"):
        table.add_column(name, justify="left" if name in ("case", "method") else "right")
    for r in records:
        floor = "" if r["noise_floor_db"] is None else f"{r['noise_floor_db']:.2f}"
        table.add_row(
            r["case"], r["method"], f"{r['psnr_db']:.2f}", f"{r['psnr_soft_db']:.2f}", f"{r['ssim']:.4f}",
            f"{r['mae_hu']:.2f}", f"{r['residual_hu']:.3f}", floor,
            f"{r['seconds']:.1f}", f"{r['peak_rss_mib']:.0f}",
        )  # fmt: skip
    Console(width=WIDTH).print(table)
    for task in dict.fromkeys((r["profile"], r["factor"]) for r in records):
        rows = [r for r in records if (r["profile"], r["factor"]) == task]
        if len({r["case"] for r in rows}) > 1:
            show_means(pd.DataFrame(rows), task_name(*task))


def show_means(rows: pd.DataFrame, task: str) -> None:
    """Print means over the cases of a task, and what the model gains on each method, with 95 % bootstrap intervals."""
    table = Table(title=f"{task}: mean of {rows['case'].nunique()} cases with 95 % interval; gain: the model's, paired")
    columns = ("method", *MEANS, *(f"gain {name}" for name in GAINS))
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    means = {metric: summarise(rows, metric, seed=0) for metric in MEANS}
    gains: dict[str, dict[str, Interval]] = {metric: {} for metric in GAINS}
    if "model" in set(rows["method"]):
        for metric, found in gains.items():
            differences = compare(rows, metric, method="model", higher_is_better=True, seed=0)
            found |= {it.baseline: it.interval for it in differences}
    for method in rows["method"].unique():
        cells = [interval_words(means[metric][method], digits) for metric, digits in MEANS.items()]
        cells += [interval_words(found[method], 2) if method in found else "" for found in gains.values()]
        table.add_row(method, *cells)
    Console(width=WIDTH).print(table)


def interval_words(it: Interval, digits: int) -> str:
    """Mean (low, high)."""
    return f"{it.mean:.{digits}f} ({it.low:.{digits}f}, {it.high:.{digits}f})"
