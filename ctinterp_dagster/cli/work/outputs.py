"""Where commands may write."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ctinterp_dagster.cli.interpolate import Options
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.physics.measurement import Estimate
from ctinterp_dagster.records import whole_file
from ctinterp_dagster.scan.io import Scan, check_output, check_overwriting, write_result


def check_files(inputs: Iterable[Path], files: Sequence[Path], *, force: bool) -> None:
    """Refuse, before the work, files that could not be written after it, or would replace an input or what is there.

    Raises:
        MissingInputError: the folder of a file is not there.
        ParamsError: see `check_overwriting`; also a file that is a folder.
    """
    for file in files:
        if file.is_dir():
            raise ParamsError(f"{file} is a folder: give a name for the file")
        if not file.absolute().parent.is_dir():
            raise MissingInputError(f"the folder {file.parent} does not exist: make it first")
    for source in filter(Path.exists, inputs):  # whoever reads it says what is missing
        check_overwriting(source, files, force=force)


@dataclass(frozen=True)
class Outputs:
    """What one scan is turned into: the thin volume, and what else was asked for."""

    thin: Path
    std: Path | None
    draws: Path | None
    preview: Path | None
    json: Path | None
    as_dicom: bool

    @classmethod
    def of(cls, options: Options) -> "Outputs":
        """Those of a single scan."""
        given = options
        return cls(given.output, given.std, given.draws, given.preview, given.json, given.as_dicom)

    @property
    def paths(self) -> list[Path]:
        """All that is written."""
        return [path for path in (self.thin, self.std, self.draws, self.preview, self.json) if path]

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
        check_overwriting(source, self.paths, force=force)

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
