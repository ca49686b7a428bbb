"""One thick scan in, one thin scan out."""

import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctinterp_dagster.cli.actions.outputs import Made, Outputs
from ctinterp_dagster.cli.actions.record import Record, StretchRecord
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.memory_slots import needed_gib, slots_gib, turn
from ctinterp_dagster.cli.options.interpolate import METHODS, Options
from ctinterp_dagster.cli.options.model_option import LATENT
from ctinterp_dagster.cli.progress import progress
from ctinterp_dagster.interpolation import (
    RELEASED,
    CheckedEstimate,
    Estimate,
    Interpolator,
    Measurement,
    SelfCheck,
    Settings,
    load_checkpoint,
    model_file,
)
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.baselines import METHODS as CLASSICAL
from ctinterp_dagster.physics.stretches import Stretches, measure_stretches
from ctinterp_dagster.records import whole_file, write_json
from ctinterp_dagster.scan.io import Scan, read_labels, read_stretches, write_volume
from ctinterp_dagster.scan.thin_labels import LabelArray, thin_labels
from ctinterp_dagster.scan.volume import FloatArray, Volume


def run(options: Options) -> None:
    """Restore one scan.

    Args:
        options: of the command.

    Raises:
        CtinterpError: the scan cannot be read, restored or written; the subclass is the reason.
        UsageError: `--label`, where the slices are uneven.
    """
    (source,), outputs, restoration = options.sources, Outputs.of(options), Restoration(options)
    outputs.check(source, restoration.model, force=options.force)
    restoration.load()
    scans = read_stretches(source, series=options.series)
    record = restoration.restore(scans, outputs, str(source))
    if outputs.json:
        write_json(outputs.json, record.as_json())
    click.echo(f"{outputs.thin}: {record.summary}")
    if len(scans) == 1:
        chosen = ("--series", options.series) if options.series else ()
        seen = (source, outputs.thin, *filter(None, (outputs.std,)), *chosen)
        click.echo(f"look at it: ctinterp view {shlex.join(map(str, seen))}")


class Restoration:
    """What some options make of any scan. The model is loaded once."""

    def __init__(self, options: Options) -> None:
        self.options, self.model = options, model_file(options.model or RELEASED)

    @cached_property
    def interpolator(self) -> Interpolator:
        """The model.

        Raises:
            MissingInputError: the model's file is not there.
            CheckpointError: it cannot be read.
        """
        return load_checkpoint(self.model, self.options.device)

    def load(self) -> None:
        """Load the model now, so that a wrong file ends a run before its first scan.

        Raises:
            MissingInputError: the file is not there.
            CheckpointError: it cannot be read.
        """
        if self.options.method != METHODS[0]:
            return
        self.interpolator  # noqa: B018 (kept)
        if str(self.options.model) == LATENT:
            click.echo(
                "the latent diffusion is farther from the truth than the released model, slower, and its samples are "
                "too alike to tell the deviation: leave out --model for an estimate to work with"
            )

    @cached_property
    def settings(self) -> Settings:
        """How the model is to restore, from the options."""
        options = self.options
        return Settings(
            options.sampler,
            options.steps or self.interpolator.model.usual_steps,
            options.samples if options.drawing else 0,
            options.seed,
            options.memory_gib,
            self.interpolator.precision(options.mixed_precision),
        )

    @property
    def settings_used(self) -> dict[str, Any]:
        """The settings, those of samples where some are drawn."""
        unused = () if self.settings.samples else ("sampler", "steps", "seed")
        return {name: value for name, value in asdict(self.settings).items() if name not in unused}

    @cached_property
    def known_model(self) -> dict[str, str]:
        """Which model it is, in the words of a record; empty for a classical method."""
        learned = self.options.method == METHODS[0]
        return {"model": str(self.model), "model_sha256": sha256sum(self.model)} if learned else {}

    def restore(self, scans: Sequence[Scan], outputs: Outputs, name: str) -> Record:
        """Restore a scan, or the stretches of one, and write the results.

        Args:
            scans: one, or the stretches of one.
            outputs: the places of the results.
            name: of the scan, for messages.

        Returns:
            What was done.

        Raises:
            CtinterpError: what cannot be measured, restored or written.
            UsageError: options that need even slices, where there are stretches.
        """
        start, options = time.perf_counter(), self.options
        if len(scans) > 1 and outputs.labels:
            raise click.UsageError(
                f"--label needs even slices, which a label map can place: {name} has {len(scans)} stretches, give "
                f"a --series: {', '.join(one.found.name for one in scans if one.found)}"
            )
        labels = [(out, *read_labels(path, scans[0].volume)) for path, out in outputs.labels]
        scan, stretches = joined_scan(scans), self._measured(scans, name)
        warnings = [*scan.warnings, *outputs.told(scan), *stretches.warnings]
        warn(warnings)
        for line in dict.fromkeys(f"slice profile: {part.slice_profile}" for part in stretches.parts):
            click.echo(line)
        known = self.known_model
        maker = f"model {known['model_sha256'][:16]}" if known else options.method
        made = Made(f"ctinterp {version('ctinterp')}, {maker}", "mean" if known else "classical", options.thin_mm)

        def write_sample(index: int, sample: Volume) -> None:
            outputs.write_sample(index, sample, scan, made)

        result, doubts = self._joined(stretches, write_sample if outputs.draws else None)
        warn(doubts)
        outputs.write(result, stretches, scan, made)
        for out, values, dtype in labels:
            write_labels(out, values, dtype, stretches.parts[0], result)
        return Record(
            version=version("ctinterp"),
            input=name,
            outputs=outputs.record,
            model=known,
            stretches=tuple(map(StretchRecord.of, stretches.parts, scans)),
            input_slices=len(stretches.thick_mm),
            output_slices=result.mean.depth,
            output_spacing_mm=result.mean.spacing_mm[0],
            output_thickness_mm=options.thin_mm or result.mean.spacing_mm[0],
            residual_hu=result.residual_hu,
            added_noise_hu=result.added_noise_hu,
            method=options.method,
            settings=self.settings_used if known else {},
            device=str(pick_device(options.device)),
            threads=torch.get_num_threads(),
            warnings=(*warnings, *doubts),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=time.perf_counter() - start,
        )

    def _measured(self, scans: Sequence[Scan], name: str) -> Stretches:
        return measure_stretches(
            [one.volume for one in scans],
            self.options.target_mm(min(one.volume.spacing_mm[0] for one in scans)),
            [Acquisition(self.options.profile, self.options.thickness_mm, Tags.of(one)) for one in scans],
            thin_thickness_mm=self.options.thin_mm,
            force=self.options.force,
            name=name,
        )

    def _joined(self, stretches: Stretches, on_sample: Callable[[int, Volume], None] | None) -> CheckedEstimate:
        """The estimate of all stretches and its doubts; each sample comes as soon as the last stretch has it."""
        samples: list[list[FloatArray]] = []  # of each stretch

        def keep(index: int, sample: Tensor) -> None:
            if on_sample is None:
                return
            samples[-1].append(sample.cpu().numpy())
            if len(samples) == len(stretches.parts):
                on_sample(index, stretches.thin([own[index] for own in samples]))
                samples[-1][index] = samples[-1][index][:0]  # written: its values are not needed again

        restored = []
        for part in stretches.parts:
            samples.append([])
            restored.append(self._restored(part, keep))
        joined = stretches.join([own.estimate for own in restored])
        return CheckedEstimate(joined, tuple(doubt for own in restored for doubt in own.doubts))

    def _restored(self, measurement: Measurement, keep: Callable[[int, Tensor], None]) -> CheckedEstimate:
        """The thin volume and its doubts that were forced; samples are kept as they come."""
        options = self.options
        needed = needed_gib(options.memory_gib, measurement.operator.n_thin * measurement.thick.hu[0].size)
        forced = options.force or options.method != METHODS[0]  # classical ones are what is offered in its place
        selfcheck = SelfCheck(measurement, forced)

        def wait() -> None:
            click.echo(f"waiting for {needed:.1f} GiB that other runs hold", err=True)

        with turn(needed, slots_gib(), on_wait=wait), progress("interpolating") as report_progress:
            if options.method == METHODS[0]:
                result = self.interpolator.restore(
                    measurement, self.settings, on_sample=keep, on_mean=selfcheck.check, on_part=report_progress
                )
            else:
                result = CLASSICAL[options.method](measurement)
                selfcheck.check(torch.from_numpy(result.mean.hu))
        return CheckedEstimate(result, selfcheck.doubts)


def write_labels(
    out: Path, labels: LabelArray, dtype: npt.DTypeLike, measurement: Measurement, result: Estimate
) -> None:
    """Write labels on the grid of the result.

    Args:
        out: the file.
        labels: (z, y, x) of the thick slices.
        dtype: of the map that they are from, and of the file.
        measurement: of the scan.
        result: its estimate.

    Raises:
        GeometryError: the labels are not of the thick slices.
        OSError: the disk is full, or refuses.
    """
    made = thin_labels(labels, measurement.thick, result.mean.hu, measurement.operator.thin_positions)
    with whole_file(out) as partial:
        write_volume(result.mean.with_hu(made.astype(np.float32)), partial, dtype)


def joined_scan(scans: Sequence[Scan]) -> Scan:
    """The first of the stretches of a scan with the warnings and the source files of all; one scan as it is."""
    parts = [scan.found for scan in scans if scan.found]
    warnings = dict.fromkeys(warning for scan in scans for warning in scan.warnings)
    found = replace(
        parts[0], files=tuple(f for p in parts for f in p.files), frames=tuple(f for p in parts for f in p.frames)
    )
    return replace(scans[0], warnings=tuple(warnings), found=found)


def warn(sentences: Iterable[str]) -> None:
    """Print each once, a line each."""
    for sentence in dict.fromkeys(sentences):
        click.echo(f"warning: {sentence}", err=True)
