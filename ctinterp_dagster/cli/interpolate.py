"""One thick scan in, one thin scan out."""

import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.outputs import check_files
from ctinterp_dagster.cli.profile import METAVAR, ProfileType
from ctinterp_dagster.cli.turns import needed_gib, slots_gib, turn
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.interpolation import (
    RELEASED,
    Estimate,
    Measurement,
    MixedPrecision,
    Settings,
    load_checkpoint,
    refuse_doubtful,
)
from ctinterp_dagster.methods import Role, judged, rows
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.model.sampler import Sampler
from ctinterp_dagster.physics.baselines import METHODS as CLASSICAL
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.physics.recognition import Auto, Tags
from ctinterp_dagster.physics.stretches import Stretches, measure_stretches
from ctinterp_dagster.records import whole_file, write_json
from ctinterp_dagster.scan.io import Scan, check_output, check_overwriting, read_stretches, write_result, write_volume

THIN_MM = 1.0
METHODS = (judged().name, *(row.name for row in rows(Role.RIVAL) if row.consistent))


@click.command(epilog="Example: ctinterp interpolate series/ -o thin.nii.gz --spacing 1 --std std.nii.gz")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="NIfTI, MHA, NRRD, or a new folder for DICOM"
)
@click.option("--format", "as_dicom", type=click.Choice(["auto", "dicom"]), default="auto", show_default=True,
              callback=lambda _, __, value: value == "dicom", help="auto goes by the output's name")  # fmt: skip
@click.option("--spacing", "spacing_mm", type=click.FloatRange(min=0, min_open=True), help="slice distance in mm [1]")
@click.option("--factor", type=click.FloatRange(min=1, min_open=True),
              help="thin slices a thick one, whole or not; instead of --spacing")  # fmt: skip
@click.option("--thickness", "thickness_mm", type=click.FloatRange(min=0, min_open=True),
              help="thickness of the scan's slices in mm [as tagged, unless the stack contradicts it]")  # fmt: skip
@click.option("--thin-thickness", "thin_mm", type=click.FloatRange(min=0, min_open=True),
              help="thickness of thin slices in mm: above their distance they overlap [distance]")  # fmt: skip
@click.option("--profile", type=ProfileType(), metavar=METAVAR, default="auto", show_default=True,
              help="of the scan's slices: auto asks their noise and the tags; FILE: offset_mm,weight")  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True,
              help="the model, or a classical method that explains the scan as well")  # fmt: skip
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
@click.option("--series", help="name (see scans check) or SeriesInstanceUID, where a folder holds several")
@click.option("--memory-gib", type=click.FloatRange(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--mixed-precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True,
              help="bf16 is faster on processors and GPUs with instructions for it")  # fmt: skip
@click.option("--preview", type=click.Path(path_type=Path), help="PNG of coronal and sagittal planes, before and after")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write what was done as JSON")
@click.option(
    "--force",
    is_flag=True,
    help="replace outputs that exist (never the input), take values that are no HU, write doubtful results",
)
def command(
    *,
    source: Path,
    output: Path,
    as_dicom: bool,
    spacing_mm: float | None,
    factor: float | None,
    thickness_mm: float | None,
    thin_mm: float | None,
    profile: Profile | Auto,
    method: str,
    steps: int,
    samples: int,
    sampler: Sampler,
    std_path: Path | None,
    draws_path: Path | None,
    model_path: Path,
    device: str,
    seed: int,
    series: str | None,
    memory_gib: float,
    mixed_precision: MixedPrecision,
    preview: Path | None,
    json_path: Path | None,
    force: bool,
) -> None:
    """Turn a thick-slice CT into a thin-slice one.

    INPUT is a NIfTI, MHA or NRRD file, or a folder or zip of DICOM. The thin volume covers the extent of the thick
    one, in the same place in space, and gives the measured slices when it is averaged again: |Ax - y| tells how
    nearly. Slices of a tilted gantry are straightened, and stretches of uneven slices joined. It is the posterior
    mean: what is to be expected, smoother than a real thin scan. --draws writes samples of what may have been, and
    --std how far they spread. Without --model the released one is used; it was measured on chests, a head and
    phantoms, with slices 1.2 to 12 times as far apart as the thin ones; a run outside of that says so. Research use
    only, not a medical device.
    """
    if spacing_mm and factor:
        raise click.UsageError("give --spacing or --factor, not both")
    wanted = std_path or draws_path
    if wanted and (steps == 1 or method != METHODS[0]):
        raise click.UsageError("--std and --draws need samples, which the model draws in --steps of 2 or more")
    start, outputs = time.perf_counter(), Outputs(output, std_path, draws_path, preview, json_path, as_dicom)
    outputs.check(source, model_path, force=force)
    scans = read_stretches(source, series=series)
    if len(scans) > 1 and (wanted or preview):
        raise click.UsageError(
            f"--std, --draws and --preview need even slices, {source} has {len(scans)} stretches: give a --series"
        )
    scan = whole(scans)
    stretches = measure_stretches(
        [one.volume for one in scans],
        min(one.volume.spacing_mm[0] for one in scans) / factor if factor else (spacing_mm or THIN_MM),
        profile,
        tags=[Tags(one.thickness_mm, one.helical) for one in scans],
        thickness_mm=thickness_mm,
        thin_thickness_mm=thin_mm,
        force=force,
        name=str(source),
    )
    warnings = [*scan.warnings, *outputs.told(scan), *stretches.warnings]
    warn(warnings)
    for said in dict.fromkeys(f"slice profile: {part.slice_profile}" for part in stretches.parts):
        click.echo(said)
    settings = Settings(sampler, steps, samples if wanted else 0, seed, memory_gib, mixed_precision)
    made = [restore(part, settings, method, model_path, device, draws_path, force=force) for part in stretches.parts]
    result, doubts = stretches.join([estimate for estimate, _ in made]), [said for _, own in made for said in own]
    warn(doubts)
    model = {"model": str(model_path), "model_sha256": sha256sum(model_path)} if method == METHODS[0] else {}
    maker = f"model {model['model_sha256'][:16]}, posterior mean" if model else method
    outputs.write(result, scan, f"ctinterp {version('ctinterp')}, {maker}", thin_mm)
    record = {
        "version": version("ctinterp"),
        "input": str(source),
        **outputs.record,
        **model,
        **grids_of(stretches, result, thin_mm),
        "method": method,
        **(asdict(settings) if model else {}),
        "device": str(pick_device(device)),
        "threads": torch.get_num_threads(),
        "warnings": [*warnings, *doubts],
        "seconds": time.perf_counter() - start,
    }
    if json_path:
        write_json(json_path, record)
    click.echo(f"{output}: {summary(record)}")
    if len(scans) == 1 and not series:
        click.echo(f"look at it: ctinterp view {shlex.join(map(str, (source, output, *filter(None, (std_path,)))))}")


def whole(scans: Sequence[Scan]) -> Scan:
    """The first of the stretches of a scan with the warnings and the source files of all; one scan as it is."""
    parts = [scan.found for scan in scans if scan.found]
    warnings = dict.fromkeys(said for scan in scans for said in scan.warnings)
    found = replace(
        parts[0], files=tuple(f for p in parts for f in p.files), frames=tuple(f for p in parts for f in p.frames)
    )
    return replace(scans[0], warnings=tuple(warnings), found=found)


def grids_of(stretches: Stretches, result: Estimate, thin_mm: float | None) -> dict[str, Any]:
    """Both grids, the slice profile, and how well the thin grid explains the thick one; lists for uneven slices."""
    spacing_mm = [part.thick.spacing_mm[0] for part in stretches.parts]
    thickness_mm = [part.thickness_mm for part in stretches.parts]
    profiles = [part.slice_profile.record for part in stretches.parts if part.slice_profile]
    even = len(stretches.parts) == 1
    return {
        **(profiles[0] if even else {"stretches": profiles}),
        "input_slices": len(stretches.thick_mm),
        "input_spacing_mm": spacing_mm[0] if even else spacing_mm,
        "input_thickness_mm": thickness_mm[0] if even else thickness_mm,
        "output_slices": result.mean.depth,
        "output_spacing_mm": result.mean.spacing_mm[0],
        "output_thickness_mm": thin_mm or result.mean.spacing_mm[0],
        "residual_hu": result.residual_hu,
    }


def summary(record: Mapping[str, Any]) -> str:
    """One line of what was done."""
    spacing_mm = " and ".join(f"{mm:g}" for mm in np.atleast_1d(record["input_spacing_mm"]))
    return (
        f"{record['input_slices']} slices of {spacing_mm} mm -> {record['output_slices']} of "
        f"{record['output_spacing_mm']:g} mm, |Ax - y| {record['residual_hu']:.3f} HU, {record['seconds']:.0f} s"
    )


def warn(sentences: Iterable[str]) -> None:
    """Print each once, a line each."""
    for said in dict.fromkeys(sentences):
        click.echo(f"warning: {said}", err=True)


@dataclass(frozen=True)
class Outputs:
    """What a run writes: the thin volume, and what else was asked for."""

    thin: Path
    std: Path | None
    draws: Path | None
    preview: Path | None
    json: Path | None
    as_dicom: bool

    @property
    def record(self) -> dict[str, str | None]:
        """Where all but the record itself lies."""
        paths = {"output": self.thin, "std": self.std, "draws": self.draws, "preview": self.preview}
        return {name: str(path) if path else None for name, path in paths.items()}

    def check(self, source: Path, model: Path, *, force: bool) -> None:
        """Refuse what could not be written, or would replace what is there; see `scan.io.output`."""
        check_output(self.thin, as_dicom=self.as_dicom)
        if self.std:
            check_output(self.std)
        if self.preview and self.preview.suffix.lower() != ".png":
            raise click.UsageError(f"--preview writes a PNG: give a name that ends in .png, not {self.preview.name}")
        if self.draws and not self.draws.absolute().parent.is_dir():
            raise MissingInputError(f"the folder {self.draws.parent} does not exist: make it first")
        check_files([source, model], [path for path in (self.preview, self.json) if path], force=True)
        outputs = self.thin, self.std, self.draws, self.preview, self.json
        check_overwriting(source, [path for path in outputs if path], force=force)

    def told(self, scan: Scan) -> tuple[str, ...]:
        """What a DICOM result gets anew; refuses a scan whose patient or values DICOM cannot hold."""
        std = check_output(self.std, scan=scan) if self.std else ()
        return (*check_output(self.thin, as_dicom=self.as_dicom, scan=scan), *std)

    def write(self, result: Estimate, scan: Scan, description: str, thin_mm: float | None) -> None:
        """Write the thin volume, its standard deviation and its picture."""
        write_result(result.mean, self.thin, scan, description, thickness_mm=thin_mm, as_dicom=self.as_dicom)
        if self.std and result.std:
            words = f"{description}: standard deviation in HU"
            write_result(result.std, self.std, scan, words, thickness_mm=thin_mm, quantity="std")
        if self.preview:
            with whole_file(self.preview) as partial:
                partial.write_bytes(before_after(scan.volume, result.mean))


def restore(
    measurement: Measurement,
    settings: Settings,
    method: str,
    model_path: Path,
    device: str,
    draws_path: Path | None,
    *,
    force: bool,
) -> tuple[Estimate, tuple[str, ...]]:
    """The thin volume and its doubts that were forced; samples are written as they come."""
    needed = needed_gib(settings.memory_gib, measurement.operator.n_thin * measurement.thick.hu[0].size)
    doubts: list[str] = []
    with (
        turn(needed, slots_gib(), lambda: click.echo(f"waiting for {needed:.1f} GiB that other runs hold", err=True)),
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress,
    ):
        task = progress.add_task("interpolating", total=settings.samples or None)

        def keep(index: int, sample: Tensor) -> None:
            if draws_path:
                draws_path.mkdir(exist_ok=True)
                for earlier in draws_path.glob("sample-*.nii.gz") if index == 0 else ():
                    earlier.unlink()  # of another run, which drew more
                write_volume(measurement.thin(sample), draws_path / f"sample-{index:02d}.nii.gz")
            progress.update(task, completed=index + 1)

        def look(mean: Tensor) -> None:
            forced = force or method != METHODS[0]  # the classical methods are what is offered in its place
            doubts.extend(refuse_doubtful(measurement, mean, force=forced))

        if method == METHODS[0]:
            result = load_checkpoint(model_path, device)(measurement, settings, keep, look)
        else:
            result = CLASSICAL[method](measurement)
            look(torch.from_numpy(result.mean.hu))
    return result, tuple(doubts)
