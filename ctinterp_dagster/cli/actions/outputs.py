"""Where commands may write."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ctinterp_dagster.cli.options.interpolate import Options
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.physics.measurement import Estimate
from ctinterp_dagster.physics.stretches import Stretches
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io import (
    WRITABLE_SUFFIXES,
    Scan,
    check_folder,
    check_output,
    check_overwriting,
    write_result,
)
from ctinterp_dagster.scan.io.dicom_writer import Quantity
from ctinterp_dagster.scan.io.multiframe import require_highdicom
from ctinterp_dagster.scan.io.output import is_series
from ctinterp_dagster.scan.volume import Volume


def check_files(inputs: Iterable[Path], files: Sequence[Path], *, force: bool) -> None:
    """Refuse, before the work, files that could not be written after it, or would replace an input or what is there.

    Args:
        inputs: what is read; one that is not there is passed over.
        files: what is to be written.
        force: replace another file that is there.

    Raises:
        MissingInputError: the folder that is to hold a file does not exist.
        ParamsError: a file is a folder, its folder cannot be written to, it touches an input or another of the files,
            or it exists and `force` does not allow it.
    """
    for file in files:
        if file.is_dir():
            raise ParamsError(f"{file} is a folder: give a name for the file")
        check_folder(file)
    for source in filter(Path.exists, inputs):  # whoever reads it says what is missing
        check_overwriting(source, files, force=force)


@dataclass(frozen=True)
class Made:
    """How a result was made, for the headers of DICOM.

    Attributes:
        description: software, model and version.
        quantity: what the values of the thin volume are.
        thin_mm: thickness of the thin slices; their distance where None.
    """

    description: str
    quantity: Quantity
    thin_mm: float | None


@dataclass(frozen=True)
class Outputs:
    """What one scan is turned into: the thin volume, and what else was asked for."""

    thin: Path
    std: Path | None
    draws: Path | None
    preview: Path | None
    json: Path | None
    as_dicom: bool
    as_multiframe: bool
    labels: tuple[tuple[Path, Path], ...] = ()

    @classmethod
    def of(cls, options: Options) -> "Outputs":
        """The files that the options ask for, of a single scan."""
        given = options
        return cls(
            given.output,
            given.std,
            given.draws,
            given.preview,
            given.json,
            given.as_dicom,
            given.as_multiframe,
            given.labels,
        )

    @property
    def paths(self) -> list[Path]:
        """The files that are written, in the order of the options."""
        labels = (out for _, out in self.labels)
        return [path for path in (self.thin, self.std, self.draws, self.preview, self.json, *labels) if path]

    @property
    def record(self) -> dict[str, str | list[str] | None]:
        """Where all but the record itself lies."""
        paths = {"output": self.thin, "std": self.std, "draws": self.draws, "preview": self.preview}
        labels = [str(out) for _, out in self.labels]
        return {name: str(path) if path else None for name, path in paths.items()} | {"labels": labels}

    def check(self, source: Path, model: Path, *, force: bool) -> None:
        """Refuse what could not be written, or would replace the scan, the model, or another file without `force`.

        Args:
            source: the scan.
            model: the model's file.
            force: replace another file that is there.

        Raises:
            UsageError: --multiframe without DICOM, or --preview without a name that ends in .png.
            MissingInputError: the folder of --draws has no parent.
            ParamsError: an ending cannot be written, a folder for DICOM is not empty, or a file would be replaced.
        """
        check_output(self.thin, as_dicom=self.as_dicom)
        if self.as_multiframe and not is_series(self.thin, as_dicom=self.as_dicom):
            raise click.UsageError(f"--multiframe is DICOM: give a new folder, or --format dicom, not {self.thin}")
        if self.as_multiframe:
            require_highdicom()
        if self.std:
            check_output(self.std)
        if self.preview and self.preview.suffix.lower() != ".png":
            raise click.UsageError(f"--preview writes a PNG: give a name that ends in .png, not {self.preview}")
        if self.draws:
            check_folder(self.draws)
        for _, out in self.labels:
            check_output(out)
            if not out.name.lower().endswith(WRITABLE_SUFFIXES):
                raise ParamsError(f"{out} is no name for a label map: give {', '.join(WRITABLE_SUFFIXES)}")
        for label in (label for label, _ in self.labels if label.exists()):  # `read_labels` says what is missing
            check_overwriting(label, self.paths, force=True)
        check_files([source, model], [path for path in (self.preview, self.json) if path], force=True)
        check_overwriting(source, self.paths, force=force)

    def told(self, scan: Scan) -> tuple[str, ...]:
        """What a DICOM result gets anew because the source has none, a sentence each.

        Args:
            scan: the source.

        Returns:
            Sentences; empty for formats other than DICOM.

        Raises:
            ParamsError: DICOM cannot hold the source's patient or study.
            IntensityError: nor its values.
        """
        std = check_output(self.std, scan=scan) if self.std else ()
        return (*check_output(self.thin, as_dicom=self.as_dicom, scan=scan), *std)

    def write(self, result: Estimate, stretches: Stretches, scan: Scan, made: Made) -> None:
        """Write the thin volume, its standard deviation, and a picture of it beside the scan.

        Args:
            result: mean and standard deviation.
            stretches: what was measured.
            scan: the source, for headers.
            made: how, for headers.
        """
        mean = replace(made, description=f"{made.description}, posterior mean") if made.quantity == "mean" else made
        self._write(result.mean, self.thin, scan, mean, as_dicom=self.as_dicom)
        if self.std and result.std:
            spread = replace(made, description=f"{made.description}, standard deviation in HU", quantity="std")
            self._write(result.std, self.std, scan, spread)
        if self.preview:
            even = len(stretches.parts) == 1
            steps_mm = () if even else [part.thick.spacing_mm[0] for part in stretches.parts]
            with whole_file(self.preview) as partial:
                partial.write_bytes(before_after(scan.volume if even else stretches.before, result.mean, steps_mm))

    def write_sample(self, index: int, sample: Volume, scan: Scan, made: Made) -> None:
        """Write a sample beside the others, in the output's format; the first removes those of another run.

        Args:
            index: of the sample, from 0.
            sample: its volume.
            scan: what it was made of.
            made: what the file says of how it was made.
        """
        if self.draws is None:
            return
        self.draws.mkdir(exist_ok=True)
        for earlier in self.draws.glob("sample-[0-9][0-9]*") if index == 0 else ():
            shutil.rmtree(earlier) if earlier.is_dir() else earlier.unlink()
        as_dicom = is_series(self.thin, as_dicom=self.as_dicom)
        place = self.draws / f"sample-{index:02d}{'' if as_dicom else '.nii.gz'}"
        words = f"{made.description}, sample {index + 1}"
        self._write(sample, place, scan, replace(made, description=words, quantity="sample"), as_dicom=as_dicom)

    def _write(self, volume: Volume, place: Path, scan: Scan, made: Made, *, as_dicom: bool = False) -> None:
        write_result(
            volume, place, scan, made.description, thickness_mm=made.thin_mm, as_dicom=as_dicom,
            as_multiframe=self.as_multiframe, quantity=made.quantity,
        )  # fmt: skip
