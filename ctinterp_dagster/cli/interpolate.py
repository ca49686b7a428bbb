"""One thick scan in, one thin scan out."""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ctinterp_dagster.cli.turns import needed_gib, slots_gib, turn
from ctinterp_dagster.interpolation import RELEASED, Settings, load_checkpoint, operator_for, thin_volume
from ctinterp_dagster.records import file_hash, write_json
from ctinterp_dagster.scan.io import check_output, check_overwriting, read_scan, write_result, write_volume

THIN_MM = 1.0


@click.command(epilog="Example: ctinterp interpolate series/ -o thin.nii.gz --spacing 1 --std std.nii.gz")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="NIfTI, MHA, NRRD, or a new folder for DICOM"
)
@click.option("--format", "as_dicom", type=click.Choice(["auto", "dicom"]), default="auto", show_default=True,
              callback=lambda _, __, value: value == "dicom", help="auto goes by the output's name")  # fmt: skip
@click.option("--spacing", "spacing_mm", type=click.FloatRange(min=0, min_open=True), help="slice distance in mm [1]")
@click.option("--factor", type=click.IntRange(min=2), help="thin slices a thick one; instead of --spacing")
@click.option("--thin-thickness", "thin_mm", type=click.FloatRange(min=0, min_open=True),
              help="thickness of thin slices in mm: above their distance they overlap [distance]")  # fmt: skip
@click.option("--profile", type=click.Choice(["box", "gaussian", "triangle"]), default="box", show_default=True,
              help="slice profile of the scan: box (cautious) or gaussian (what helical scanners show)")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=8, show_default=True,
              help="network evaluations a sample; 1 draws no samples")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=2), default=8, show_default=True,
              help="samples for --std and --draws; the mean needs none")  # fmt: skip
@click.option("--sampler", type=click.Choice(["adams", "ddim", "ddpm"]), default="adams", show_default=True,
              help="adams is DDIM's equation to second order: its samples keep their noise in few steps")  # fmt: skip
@click.option("--std", "std_path", type=click.Path(path_type=Path), help="file for the standard deviation in HU")
@click.option("--draws", "draws_path", type=click.Path(path_type=Path), help="folder for the samples, one file each")
@click.option("--model", "model_path", type=click.Path(path_type=Path), default=RELEASED, help="model [released]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="the same seed, the same bytes")
@click.option("--series", help="SeriesInstanceUID, where a folder holds several series")
@click.option("--memory-gib", type=click.FloatRange(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--mixed-precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True,
              help="bf16 is faster on processors and GPUs with instructions for it")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write what was done as JSON")
@click.option("--force", is_flag=True, help="replace outputs that exist; the input never is")
def command(
    *,
    source: Path,
    output: Path,
    as_dicom: bool,
    spacing_mm: float | None,
    factor: int | None,
    thin_mm: float | None,
    profile: str,
    steps: int,
    samples: int,
    sampler: str,
    std_path: Path | None,
    draws_path: Path | None,
    model_path: Path,
    device: str,
    seed: int,
    series: str | None,
    memory_gib: float,
    mixed_precision: str,
    json_path: Path | None,
    force: bool,
) -> None:
    """Turn a thick-slice CT into a thin-slice one.

    INPUT is a NIfTI, MHA or NRRD file, or a folder or zip of DICOM. The thin volume covers the extent of the thick
    one, in the same place in space, and gives the measured slices when it is averaged again. It is the posterior
    mean: what is to be expected, smoother than a real thin scan. --draws writes samples of what may have been, and
    --std how far they spread. Without --model the released one is used. Research use only, not a medical device.
    """
    if spacing_mm and factor:
        raise click.UsageError("give --spacing or --factor, not both")
    check_output(output, as_dicom=as_dicom)
    if std_path:
        check_output(std_path)
    check_overwriting(source, [p for p in (output, std_path, draws_path, json_path) if p], force=force)
    drawn = samples if (std_path or draws_path) and steps > 1 else 0
    if (std_path or draws_path) and not drawn:
        raise click.UsageError("--std and --draws need samples, which need --steps of 2 or more")
    start = time.perf_counter()
    scan = read_scan(source, series=series)
    for said in sorted(
        {
            *check_output(output, as_dicom=as_dicom, scan=scan),
            *(check_output(std_path, scan=scan) if std_path else ()),
        }
    ):
        click.echo(f"warning: {said}", err=True)
    thick = scan.volume
    thickness_mm = scan.thickness_mm or thick.spacing_mm[0]
    target_mm = thick.spacing_mm[0] / factor if factor else (spacing_mm or THIN_MM)
    operator = operator_for(thick.depth, thick.spacing_mm[0], thickness_mm, target_mm, profile, thin_mm)  # type: ignore[arg-type]
    settings = Settings(sampler, steps, drawn, seed, memory_gib, mixed_precision)  # type: ignore[arg-type]
    needed = needed_gib(memory_gib, len(operator.thin_positions) * thick.hu[0].size)
    with (
        turn(needed, slots_gib(), lambda: click.echo(f"waiting for {needed:.1f} GiB that other runs hold", err=True)),
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress,
    ):
        interpolator = load_checkpoint(model_path, device)
        task = progress.add_task("interpolating", total=drawn or None)

        def keep(index: int, sample: Tensor) -> None:
            if draws_path:
                draws_path.mkdir(exist_ok=True)
                write_volume(thin_volume(thick, operator, sample), draws_path / f"sample-{index:02d}.nii.gz")
            progress.update(task, completed=index + 1)

        result = interpolator(thick, operator, settings, keep)
    description = f"ctinterp {version('ctinterp')}, model {file_hash(model_path)[:16]}, posterior mean"
    write_result(result.thin, output, scan, description, thickness_mm=thin_mm, as_dicom=as_dicom)
    if std_path and result.std:
        write_result(
            result.std, std_path, scan, f"{description}: standard deviation in HU", thickness_mm=thin_mm, quantity="std"
        )
    record = {
        "input_slices": thick.depth,
        "input_spacing_mm": thick.spacing_mm[0],
        "output_slices": result.thin.depth,
        "output_spacing_mm": result.thin.spacing_mm[0],
        "output_thickness_mm": thin_mm or result.thin.spacing_mm[0],
        "residual_hu": result.residual_hu,
        "profile": profile,
        "sampler": sampler,
        "steps": steps,
        "samples": drawn,
        "seed": seed,
        "device": str(interpolator.device),
        "mixed_precision": mixed_precision,
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - start,
    }
    if json_path:
        write_json(json_path, record)
    click.echo(
        f"{output}: {thick.depth} slices of {thick.spacing_mm[0]:g} mm -> {result.thin.depth} of "
        f"{result.thin.spacing_mm[0]:g} mm, |Ax - y| {result.residual_hu:.3f} HU, {record['seconds']:.0f} s"
    )
