"""What `ctinterp interpolate` is given."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import click

from ctinterp_dagster.methods import Role, judged, rows

if TYPE_CHECKING:
    from ctinterp_dagster.model.restore_settings import Precision
    from ctinterp_dagster.model.sampler import Sampler
    from ctinterp_dagster.physics.acquisition import Auto
    from ctinterp_dagster.physics.profile import Profile

THIN_MM = 1.0
METHODS = (judged().name, *(row.name for row in rows(Role.RIVAL) if row.consistent))
PATTERN_FIELDS = {"path", "name", "series", "number", "date", "uid"}


@dataclass(frozen=True)
class Options:
    """What the command is given; each field is the option of its name, or of the name beside it."""

    sources: tuple[Path, ...]
    output: Path
    every: bool  # --all
    name: str | None
    as_dicom: bool  # --format dicom
    as_multiframe: bool  # --multiframe
    spacing_mm: float | None
    factor: float | None
    thickness_mm: float | None
    thin_mm: float | None  # --thin-thickness
    profile: "Profile | Auto"
    method: str
    steps: int | None
    samples: int
    sampler: "Sampler"
    std: Path | None
    draws: Path | None
    model: Path | None
    device: str
    seed: int
    series: str | None
    memory_gib: float
    mixed_precision: "Precision"
    labels: tuple[tuple[Path, Path], ...]  # --label
    preview: Path | None
    json: Path | None
    force: bool

    def __post_init__(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: some do not.
        """
        if self.spacing_mm and self.factor:
            raise click.UsageError("give --spacing or --factor, not both")
        if self.drawing and self.method != METHODS[0]:
            raise click.UsageError("--std and --draws need samples, which only the model draws")
        if self.of_many and self.series:
            raise click.UsageError("--series chooses one scan: give one INPUT, without --all and --name")
        for option in ("name", "std", "draws", "preview") if self.of_many else ():
            if pattern := getattr(self, option):
                refuse_pattern(option, str(pattern))
        for pattern in itertools.chain(*self.labels) if self.of_many else ():
            refuse_pattern("label", str(pattern))

    @property
    def drawing(self) -> bool:
        """Whether samples are drawn."""
        return bool(self.std or self.draws)

    @property
    def of_many(self) -> bool:
        """Whether every thick scan of the inputs is meant, and the output is a folder of results."""
        return self.every or self.name is not None or len(self.sources) > 1

    def target_mm(self, thick_mm: float) -> float:
        """Distance of the thin slices that are asked for of thick ones this far apart."""
        return thick_mm / self.factor if self.factor else (self.spacing_mm or THIN_MM)


def refuse_pattern(option: str, pattern: str) -> None:
    """Refuse a pattern that names no scan, an unknown field, or a place out of the folder of results.

    Args:
        option: its name, without dashes.
        pattern: what was given for it, with fields such as `{path}`.

    Raises:
        UsageError: it does.
    """
    try:
        fields = {field for _, field, _, _ in Formatter().parse(pattern) if field is not None}
    except ValueError as error:
        raise click.UsageError(f"--{option} {pattern} is no pattern ({error}): write {{path}}") from error
    if not fields or fields - PATTERN_FIELDS or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        known = ", ".join(f"{{{field}}}" for field in sorted(PATTERN_FIELDS))
        raise click.UsageError(
            f"--{option} {pattern} is to name a file of each scan below --output: give it with one or more of {known}"
        )
