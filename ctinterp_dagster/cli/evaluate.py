"""Held-out thin scans, thickened, restored with every method, and scored."""

import sys
from pathlib import Path
from typing import Any, get_args

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.evaluation.metrics import Scores
from ctinterp_dagster.interpolation import RELEASED, load_checkpoint, thicken
from ctinterp_dagster.params import Baseline, Profile
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.records import write_json
from ctinterp_dagster.scan.io import read_scan

METHODS = (*get_args(Baseline), "model")
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
@click.argument("thin", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--factor", type=click.IntRange(min=2), default=5, show_default=True, help="thin slices a thick one")
@click.option("--profile", type=click.Choice(get_args(Profile)), default="box", show_default=True)
@click.option("--model", "model_path", type=click.Path(path_type=Path), default=RELEASED, help="model [released]")
@click.option("--methods", callback=parse_methods, default=",".join(METHODS), help="which, with commas [all]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--memory-gib", type=click.FloatRange(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write the records as JSON")
def command(
    *,
    thin: tuple[Path, ...],
    factor: int,
    profile: Profile,
    model_path: Path,
    methods: tuple[str, ...],
    device: str,
    memory_gib: float,
    json_path: Path | None,
) -> None:
    """Score every method on THIN volumes that the model has not seen.

    Each is thickened, restored, and compared with itself. `psnr_db` is in the window [-1000, 1000] HU with FACTOR
    slices dropped at each end. Research use only, not a medical device.
    """
    if json_path and not json_path.absolute().parent.is_dir():
        raise MissingInputError(f"the folder {json_path.parent} does not exist: make it first")
    model = load_checkpoint(model_path, device) if "model" in methods else None
    baselines = tuple(name for name in methods if name != "model")
    records: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("scoring", total=len(thin) * len(methods))
        for path in thin:
            progress.update(task, description=path.name)
            truth = read_scan(path).volume
            thick = thicken(truth, factor, profile)
            models = {"model": model.means(thick.spacing_mm, memory_gib)} if model else {}
            for scored in score_methods(
                truth, thick, factor=factor, profile=profile, baselines=baselines, models=models
            ):
                costs = {"seconds": scored.seconds, "peak_rss_mib": scored.peak_rss_mib}
                labels = {"case": case_name(path), "method": scored.method, "factor": factor, "profile": profile}
                records.append({**labels, **fields_of(scored.scores), **costs})
                progress.advance(task)
    if json_path:
        write_json(json_path, records)
    show(records)


def case_name(path: Path) -> str:
    """A file's name without the ending of its format."""
    return path.name.split(".")[0] or path.name


def fields_of(scores: Scores) -> dict[str, float | None]:
    """The metrics of a record."""
    return {name: getattr(scores, name) for name in FIELDS}


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(
        title=f"factor {records[0]['factor']}, {records[0]['profile']} profile, {torch.get_num_threads()} threads"
    )
    for name in ("case", "method", "psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu", "seconds"):
        table.add_column(name, justify="left" if name in ("case", "method") else "right")
    for r in records:
        table.add_row(
            r["case"], r["method"], f"{r['psnr_db']:.2f}", f"{r['psnr_soft_db']:.2f}", f"{r['ssim']:.4f}",
            f"{r['mae_hu']:.2f}", f"{r['residual_hu']:.3f}", f"{r['seconds']:.1f}",
        )  # fmt: skip
    Console(width=110).print(table)
