"""What the commands behind docs/evidence.md share: scans as measurements of 5 mm, who restores them, and tables."""

import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.grids import cropped
from ctinterp_dagster.decision import read_record
from ctinterp_dagster.evaluation.evidence_tables import CommandRun, Measured, Table
from ctinterp_dagster.evaluation.planting import BONE, LUNG, SOFT
from ctinterp_dagster.interpolation import RELEASED, Interpolator, Measurement, Method, Settings, simulated
from ctinterp_dagster.methods import Role, names
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.records import file_hash, read_json, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import Volume

THICK_MM, FINEST_MM = 5.0, 1.0
CONTRASTS_HU = {LUNG: (100, 200, 800), SOFT: (20, 100, 800), BONE: (-200, -400, -800)}
"""Of what is planted."""
ORDER = ("truth", *METHODS, "model")
"""Of the lines of a table."""


class ThinScan(NamedTuple):
    """A scan that is measured: its name, its volume, and the thickness of its slices where that was told."""

    name: str
    volume: Volume
    thickness_mm: float | None


def thin_scan(argument: str, side: int = 0) -> ThinScan:
    """The scan of `THIN` or `THIN,MM`; the middle `side` pixels, all for 0."""
    path, _, thickness = argument.partition(",")
    scan = cropped(read_scan(Path(path)).volume, side)
    return ThinScan(Path(path).name.split(".")[0], scan, float(thickness) if thickness else None)


def thickened(thin: Volume, thickness_mm: float | None = None) -> Measurement:
    """The 5 mm slices (box) of a thin scan, whose truth has slices of 1 mm, or of its own distance where that is more.

    Args:
        thin: the scan.
        thickness_mm: of its slices, where they overlap.

    Returns:
        The measurement with its truth.
    """
    truth_mm = max(FINEST_MM, thin.spacing_mm[0])
    return simulated(thin, THICK_MM / truth_mm, "box", truth_mm, thickness_mm)


def usual(model: Interpolator, samples: int = 0) -> Settings:
    """What `interpolate` takes where nobody says else: the fastest precision that the processor knows."""
    return Settings(samples=samples, mixed_precision=model.precision("auto"))


def contestants(model: Interpolator) -> dict[str, Method]:
    """All classical methods and a model as `usual`; `nearest` shows the thick slices as they are."""
    return {**METHODS, "model": model.by(usual(model))}


def best_classical(values: Mapping[str, float], *, higher_is_better: bool = True) -> str:
    """The rival with the best value, of those that interpolate: the thick slices themselves are not among them."""
    rivals = [name for name in names(Role.RIVAL) if name != "nearest" and name in values]
    return (max if higher_is_better else min)(rivals, key=lambda name: values[name])


def table(header: Iterable[object], rows: Iterable[Iterable[object]], title: str = "") -> Table:
    """A table, whose text is Markdown."""
    return Table(title, tuple(map(str, header)), tuple(tuple(map(str, row)) for row in rows))


class EvidenceFile:
    """A file of `reports/evidence`: records of one model, the commands that measured them, and their tables.

    The report of a run shows commands and tables. Folders are left out of the commands.

    Attributes:
        records: what was measured; more may be added before `save`.
    """

    def __init__(self, path: Path, model: Path) -> None:
        """Read what is there.

        Args:
            path: of the file.
            model: the file of the model that is measured.

        Raises:
            ClickException: the records are of another model.
        """
        self._path = path
        words = [word.rsplit("/", 1)[-1] for word in sys.argv[1:]]
        command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(words)}"
        self._run = CommandRun(command, datetime.now(UTC).date().isoformat(), file_hash(model))
        self._runs = read_record(Measured, path).runs if path.exists() else ()
        self.records: list[dict[str, Any]] = read_json(path)["records"] if path.exists() else []
        if any(run.model != self._run.model for run in self._runs):
            raise click.ClickException(f"{path} holds records of another model than {model.name}: give another file")

    def save(self, tables: Iterable[Table]) -> None:
        """Write the records and their tables; the command that runs is among those that measured them."""
        self._runs = tuple(dict.fromkeys((*self._runs, self._run)))
        write_json(self._path, {"runs": self._runs, "tables": list(tables), "records": self.records})


MODEL = click.option(
    "--model", "model_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=RELEASED,
    help="file of the model, the released one where none is given",
)  # fmt: skip
"""The option of every command behind docs/evidence.md."""
