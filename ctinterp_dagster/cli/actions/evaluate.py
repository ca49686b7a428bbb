"""Held-out thin scans, thickened, restored with every method, and scored."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click

from ctinterp_dagster.cli.actions import protocols, tables
from ctinterp_dagster.cli.actions.jobs import Job, check_order, fit
from ctinterp_dagster.cli.actions.outputs import check_files
from ctinterp_dagster.cli.actions.protocols import trials_of
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.options.evaluate import LEARNED, METHODS, OWN, Options
from ctinterp_dagster.cli.progress import progress
from ctinterp_dagster.errors import EvaluationError, GeometryError, MissingInputError, ParamsError
from ctinterp_dagster.evaluation.metrics import Scores, check_size
from ctinterp_dagster.interpolation import (
    RELEASED,
    Measurement,
    Method,
    Settings,
    load_checkpoint,
    model_file,
    paired,
    simulated,
)
from ctinterp_dagster.methods import REGRESSION, judged
from ctinterp_dagster.physics.acquisition import Acquisition, Auto, Tags
from ctinterp_dagster.physics.baselines import METHODS as CLASSICAL
from ctinterp_dagster.physics.measurement import slices_a_mean
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from ctinterp_dagster.pipeline.testset.thick_scans import REAL
from ctinterp_dagster.records import read_json, write_json

FACTOR = 5.0
RECORD_FIELDS = (
    "psnr_db", "psnr_rplhr_db", "psnr_soft_db", "ssim", "ssim_3d", "mae_hu", "residual_hu", "noise_floor_db",
)  # fmt: skip
COST = {"tv_projected": 10.0, "registration_projected": 20.0, REGRESSION: 10.0, judged().name: 20.0}


def run(options: Options) -> None:
    """Score every scan; the records of each are written as it is done, and those of before kept until all are.

    Args:
        options: of the command.

    Raises:
        CtinterpError: a scan cannot be scored, told before the first is, or the model cannot be read.
    """
    check_files([*options.thin, *itertools.chain(*options.pairs)], [options.json] if options.json else [], force=True)
    jobs = jobs_of(options) if options.protocol == OWN else trials_of(options)
    sizes = [job.check() for job in jobs]
    restoring, known = restoring_by(options), earlier(options.json)
    model_sha256 = sha256sum(model_file(options.model or RELEASED)) if set(restoring) & set(LEARNED) else ""
    records: list[dict[str, Any]] = []
    work = sum(sizes) * sum(COST.get(name, 1.0) for name in restoring)
    with progress("scoring") as report_progress:
        spent = 0.0
        for job, size in zip(jobs, sizes, strict=True):
            made_of = {name: job.made_of(name, options, model_sha256) for name in restoring}
            rest = {name: method for name, method in restoring.items() if made_of[name] not in known}
            scored = job.score(rest) if rest else iter(())
            for name, own in made_of.items():
                records.append(known.pop(own) if own in known else next(scored) | {"made_of": own})
                if options.json:
                    write_json(options.json, [*records, *known.values()])
                spent += size * COST.get(name, 1.0)
                report_progress(spent / work)
    if options.json:
        write_json(options.json, records)
    if options.protocol == OWN:
        tables.show(records)
    else:
        protocols.show(records, options.protocol)


def jobs_of(options: Options) -> list[Job]:
    """The scans, pairs or trials that the options name, in their order."""
    shape, factor = cast("Profile", options.profile or "box"), options.factor or FACTOR  # `Options` refuses "auto"
    thin = partial(load_thin, factor=factor, profile=shape, spacing_mm=options.spacing_mm, thin_mm=options.thin_mm)
    task = f"{factor}, {shape}, {options.spacing_mm}, {options.thin_mm}"
    profile = options.profile or "auto"
    return [
        *(OwnJob((path,), str(shape), task, partial(thin, path)) for path in options.thin),
        *(OwnJob(pair, REAL, str(profile), partial(load_pair, *pair, profile)) for pair in options.pairs),
    ]


def restoring_by(options: Options) -> dict[str, Method]:
    """The methods that are asked for, in their order.

    Args:
        options: of the command.

    Returns:
        The methods by name; without the regression where the model has none.

    Raises:
        UsageError: the regression is asked for by its name, of a model that does not start from one.
    """
    methods = options.methods
    restoring = {name: CLASSICAL[name] for name in methods if name not in LEARNED}
    if not set(methods) & set(LEARNED):
        return restoring
    model = load_checkpoint(options.model or RELEASED, options.device)
    settings = Settings(memory_gib=options.memory_gib, mixed_precision=options.mixed_precision)
    learned = {name: replace(settings, mirror=name == judged().name) for name in methods if name in LEARNED}
    if not model.starts_from_regression and REGRESSION in learned and methods != METHODS:
        raise click.UsageError(f"{options.model} does not start from a regression: leave regression out of --methods")
    return restoring | {
        name: model.by(how) for name, how in learned.items() if name != REGRESSION or model.starts_from_regression
    }


def earlier(path: Path | None) -> dict[str, dict[str, Any]]:
    """The records of a run that was interrupted, or of other scans, by what they are made of.

    Args:
        path: of the records; none where it is None or not there.

    Returns:
        Records by the hash `made_of`; empty where there is no file.

    Raises:
        ParamsError: the file holds other things, or is damaged.
    """
    if not (path and path.exists()):
        return {}
    try:
        return {row["made_of"]: row for row in read_json(path)}
    except (MissingInputError, TypeError, KeyError) as error:
        raise ParamsError(
            f"{path} holds no scores of an earlier run: give --json another name, or remove it"
        ) from error


@dataclass(frozen=True)
class OwnJob(Job):
    """A scan that is scored by every metric of this project.

    Attributes:
        load: reads thick scan and truth.
    """

    load: Callable[[], Measurement]

    def check(self) -> int:
        """Read both scans and print what is odd about them.

        Returns:
            The voxels, z y x, of the truth.

        Raises:
            ParamsError: the grid or the profile cannot be. Each message begins with the scan's name.
            EvaluationError: the truth is too small to be scored.
            GeometryError: thick scan and truth do not lie over each other.
        """
        try:
            measurement = self.load()
            check_size(measurement.known.hu.shape, measurement.factor)
        except (ParamsError, EvaluationError, GeometryError) as error:
            raise type(error)(f"{self.name}: {error}") from error
        for warning in measurement.warnings:
            click.echo(f"{self.name}: {warning}", err=True)
        if measurement.slice_profile:
            click.echo(f"{self.name}: slice profile: {measurement.slice_profile}", err=True)
        return measurement.known.hu.size

    def score(self, restoring: Mapping[str, Method]) -> Iterator[dict[str, Any]]:
        """Restore by every method and score.

        Args:
            restoring: methods by name.

        Yields:
            Case, grid, metrics and costs of each method.

        Raises:
            EvaluationError: nothing can be scored.
        """
        measurement = self.load()
        grid = {"factor": measurement.factor, "spacing_mm": measurement.known.spacing_mm[0]}
        labels = {"case": self.name, **grid, "profile": self.profile}
        if found := measurement.slice_profile:
            labels |= found.record | {"profile_shape": str(found.profile), "profile": self.profile}
        for scored in score_methods(measurement, restoring):
            costs = {"seconds": scored.seconds, "peak_rss_mib": scored.peak_rss_mib}
            yield {**labels, "method": scored.method, **fields_of(scored.scores), **costs}


def load_thin(
    path: Path, factor: float, profile: Profile, spacing_mm: float | None, thin_mm: float | None
) -> Measurement:
    """A thin scan, thickened.

    Args:
        path: of the scan.
        factor: thick slices over slices of the grid that is restored.
        profile: of the thick slices.
        spacing_mm: of that grid; None for the scan's own.
        thin_mm: thickness of the scan's slices, where they overlap; None where they touch.

    Returns:
        The thick scan with its operator, and the thin one as the truth; thick slices that cannot be made as told are
        remarked.

    Raises:
        ScanError: the scan cannot be used.
        ParamsError: the grid cannot be.
    """
    thin = fit(path).volume
    measurement = simulated(thin, factor, profile, spacing_mm, thin_mm)
    if slices_a_mean(thin, spacing_mm).is_integer():
        return measurement
    remark = f"slices of {thin.spacing_mm[0]:g} mm do not fill {spacing_mm} mm: those that do in part weigh by the part"
    return replace(measurement, warnings=(remark,))


def load_pair(thick_path: Path, thin_path: Path, profile: Profile | Auto) -> Measurement:
    """A real thick scan, measured with its slice profile, and its thin partner as the truth.

    Args:
        thick_path: of the thick scan.
        thin_path: of the thin one, on the same pixels.
        profile: of the thick slices; `auto` has it found from tags and noise.

    Returns:
        The measurement of what both show.

    Raises:
        ScanError: a scan cannot be used, or the two do not lie over each other, or are swapped.
        ParamsError: the profile cannot be.
    """
    thick, thin = fit(thick_path), fit(thin_path)
    check_order(thick, thin)
    return paired(thick.volume, thin.volume, Acquisition(profile, tags=Tags(thick.thickness_mm, thick.helical)))


def fields_of(scores: Scores) -> dict[str, float | None]:
    """The metrics of a record."""
    return {name: getattr(scores, name) for name in RECORD_FIELDS}
