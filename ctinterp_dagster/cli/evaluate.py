"""Held-out thin scans, thickened, restored with every method, and scored."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ctinterp_dagster.cli.adding import given_for
from ctinterp_dagster.cli.profile import METAVAR, ProfileType
from ctinterp_dagster.errors import EvaluationError, GeometryError, MissingInputError, ParamsError
from ctinterp_dagster.evaluation.metrics import Scores, check_size
from ctinterp_dagster.evaluation.statistics import Interval, by_task, compare, summarise
from ctinterp_dagster.interpolation import (
    RELEASED,
    Measurement,
    MixedPrecision,
    Settings,
    load_checkpoint,
    paired,
    simulated,
)
from ctinterp_dagster.methods import REGRESSION, Role, judged, names
from ctinterp_dagster.params import task_name
from ctinterp_dagster.physics.baselines import METHODS as CLASSICAL
from ctinterp_dagster.physics.measurement import slices_a_mean
from ctinterp_dagster.physics.profile import Profile, SampledProfile
from ctinterp_dagster.physics.recognition import Auto, Tags
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.pipeline.testset import REAL
from ctinterp_dagster.records import write_json
from ctinterp_dagster.scan.checks import MIN_SLICES, check_volume
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import Scan, check_overwriting, read_scan
from ctinterp_dagster.scan.padding import without_padding

LEARNED = (REGRESSION, judged().name)
METHODS = (*names(Role.RIVAL), *LEARNED)
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
@click.option("--factor", type=click.FloatRange(min=1, min_open=True), default=5.0, show_default=True,
              help="thin slices a thick one, whole or not")  # fmt: skip
@click.option("--spacing", "spacing_mm", type=click.FloatRange(min=0, min_open=True),
              help="slice distance in mm to restore to; the truth is means of THIN's slices [THIN's own]")  # fmt: skip
@click.option("--profile", type=ProfileType(), metavar=METAVAR, help="of thick slices [of THIN box, of a pair auto]")
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
    factor: float,
    spacing_mm: float | None,
    profile: Profile | Auto | None,
    thin_mm: float | None,
    model_path: Path,
    methods: tuple[str, ...],
    device: str,
    memory_gib: float,
    mixed_precision: MixedPrecision,
    json_path: Path | None,
) -> None:
    """Score every method on THIN volumes that the model has not seen.

    Each is thickened, restored, and compared with itself, or with its means every --spacing mm: what `interpolate
    --spacing` gives of a scan whose slices are FACTOR times as far apart. A real thick scan is compared with its thin
    partner, by position in mm. `psnr_db` is in the window [-1000, 1000] HU without the slices of one thick slice at
    each end. Research use only, not a medical device.
    """
    refuse_mistakes(thin, pairs, profile, spacing_mm, json_path)
    shape = cast("Profile", profile or "box")  # no "auto", of which refuse_mistakes knows
    jobs = [
        *(Job(path, str(shape), partial(load_thin, path, factor, shape, spacing_mm, thin_mm)) for path in thin),
        *(Job(thick, REAL, partial(load_pair, thick, partner, profile or "auto")) for thick, partner in pairs),
    ]
    for job in jobs:
        check(job)
    model = load_checkpoint(model_path, device) if set(methods) & set(LEARNED) else None
    restoring = {name: CLASSICAL[name] for name in methods if name not in LEARNED}
    settings = Settings(memory_gib=memory_gib, mixed_precision=mixed_precision)
    learned = {name: replace(settings, mirror=name == judged().name) for name in methods if name in LEARNED}
    if model and not model.starts_from_regression and learned.pop(REGRESSION, None) and methods != METHODS:
        raise click.UsageError(f"{model_path} does not start from a regression: leave it out of --methods")
    restoring |= {name: model.by(how) for name, how in learned.items()} if model else {}
    records: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("scoring", total=(len(thin) + len(pairs)) * len(methods))
        for job in jobs:
            progress.update(task, description=job.path.name)
            measurement = job.load()
            grid = {"factor": measurement.factor, "spacing_mm": measurement.known.spacing_mm[0]}
            labels = {"case": case_name(job.path), **grid, "profile": job.profile}
            if found := measurement.slice_profile:
                labels |= found.record | {"profile_shape": str(found.profile), "profile": job.profile}
            for scored in score_methods(measurement, restoring):
                costs = {"seconds": scored.seconds, "peak_rss_mib": scored.peak_rss_mib}
                records.append({**labels, "method": scored.method, **fields_of(scored.scores), **costs})
                progress.advance(task)
    if json_path:
        write_json(json_path, records)
    show(records)


def refuse_mistakes(
    thin: tuple[Path, ...],
    pairs: tuple[tuple[Path, Path], ...],
    profile: Profile | Auto | None,
    spacing_mm: float | None,
    json_path: Path | None,
) -> None:
    """Refuse arguments that do not go together, before anything is read."""
    if not thin and not pairs:
        raise click.UsageError("give THIN volumes or --pair THICK THIN")
    if thin and (profile == "auto" or isinstance(profile, SampledProfile)):
        raise click.UsageError("THIN is thickened with a shape: give --profile box or another")
    if spacing_mm and not thin:
        raise click.UsageError("--spacing is for THIN volumes: a pair is compared on its own thin slices")
    for paths in (thin, tuple(thick for thick, _ in pairs)):
        if len(set(map(case_name, paths))) < len(paths):
            raise click.UsageError("two of the scans have the same name: give each once, or rename one")
    if json_path and not json_path.absolute().parent.is_dir():
        raise MissingInputError(f"the folder {json_path.parent} does not exist: make it first")
    for path in (*thin, *itertools.chain(*pairs)):
        check_overwriting(path, [json_path] if json_path else [], force=True)


@dataclass(frozen=True)
class Job:
    """A thick scan with its truth: the path that names it, the name of its task's profile, and how to read both."""

    path: Path
    profile: str
    load: Callable[[], Measurement]


def check(job: Job) -> None:
    """Refuse scans that cannot be scored, with their path, before the first is computed; print what is to be known.

    Raises:
        CtinterpError: as reading and relating them raises.
    """
    try:
        measurement = job.load()
        check_size(measurement.known.hu.shape, measurement.factor)
    except (ParamsError, EvaluationError, GeometryError) as error:
        raise type(error)(f"{job.path}: {error}") from error
    for said in measurement.warnings:
        click.echo(f"{case_name(job.path)}: {said}", err=True)
    if measurement.slice_profile:
        click.echo(f"{case_name(job.path)}: slice profile: {measurement.slice_profile}", err=True)


def load_thin(
    path: Path, factor: float, profile: Profile, spacing_mm: float | None, thin_mm: float | None
) -> Measurement:
    """A thin scan, thickened."""
    thin = fit(path).volume
    measurement = simulated(thin, factor, profile, spacing_mm, thin_mm)
    if slices_a_mean(thin, spacing_mm).is_integer():
        return measurement
    remark = f"slices of {thin.spacing_mm[0]:g} mm do not fill {spacing_mm} mm: those that do in part weigh by the part"
    return replace(measurement, warnings=(remark,))


def load_pair(thick_path: Path, thin_path: Path, profile: Profile | Auto) -> Measurement:
    """A real thick scan and its partner."""
    thick, thin = fit(thick_path), fit(thin_path)
    return paired(thick.volume, thin.volume, profile, tags=Tags(thick.thickness_mm, thick.helical))


def fit(path: Path) -> Scan:
    """A scan that passes the one check, its padding filled."""
    scan = read_scan(path)
    check_volume(scan.volume, min_slices=MIN_SLICES, name=str(path))
    return replace(scan, volume=without_padding(scan.volume)[0])


def case_name(path: Path) -> str:
    """A file's name without the ending of its format if an index beside it lists it, else a pseudonym of its place."""
    listed = any(row["file"] == path.name for row in given_for(path, path.name)) and path.is_file()
    return (path.name.split(".")[0] or path.name) if listed else pseudonym(str(path.resolve()), load_key(), "s")


def fields_of(scores: Scores) -> dict[str, float | None]:
    """The metrics of a record."""
    return {name: getattr(scores, name) for name in FIELDS}


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title=f"{torch.get_num_threads()} threads")
    scores = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")
    words = ("case", "task", "method")
    for name in ("case", "task", "mm", "method", *scores, "noise floor dB", "seconds", "peak MiB"):
        table.add_column(name, justify="left" if name in words else "right")
    for r in records:
        floor = "" if r["noise_floor_db"] is None else f"{r['noise_floor_db']:.2f}"
        table.add_row(
            r["case"], task_name(r["profile"], r["factor"]), f"{r['spacing_mm']:g}", r["method"],
            f"{r['psnr_db']:.2f}", f"{r['psnr_soft_db']:.2f}", f"{r['ssim']:.4f}", f"{r['mae_hu']:.2f}",
            f"{r['residual_hu']:.3f}", floor, f"{r['seconds']:.1f}", f"{r['peak_rss_mib']:.0f}",
        )  # fmt: skip
    Console(width=WIDTH).print(table)
    for task, rows in by_task(pd.DataFrame(records)):
        if len(set(rows["case"])) > 1:
            show_means(rows, task)


def show_means(rows: pd.DataFrame, task: str) -> None:
    """Print means over the cases of a task, and what the model gains on each method, with 95 % bootstrap intervals."""
    table = Table(title=f"{task}: mean of {rows['case'].nunique()} cases with 95 % interval; gain: the model's, paired")
    columns = ("method", *MEANS, *(f"gain {name}" for name in GAINS))
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    means = {metric: summarise(rows, metric, seed=0) for metric in MEANS}
    gains: dict[str, dict[str, Interval]] = {metric: {} for metric in GAINS}
    if judged().name in set(rows["method"]):
        for metric, found in gains.items():
            differences = compare(rows, metric, method=judged().name, higher_is_better=True, seed=0)
            found |= {it.baseline: it.interval for it in differences}
    for method in rows["method"].unique():
        cells = [interval_words(means[metric][method], digits) for metric, digits in MEANS.items()]
        cells += [interval_words(found[method], 2) if method in found else "" for found in gains.values()]
        table.add_row(method, *cells)
    Console(width=WIDTH).print(table)


def interval_words(it: Interval, digits: int) -> str:
    """Mean (low, high)."""
    return f"{it.mean:.{digits}f} ({it.low:.{digits}f}, {it.high:.{digits}f})"
