"""What `ctinterp evaluate` is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ctinterp_dagster.methods import REGRESSION, Role, judged, names
from ctinterp_dagster.physics.profile import SampledProfile

if TYPE_CHECKING:
    from ctinterp_dagster.model.restore_settings import MixedPrecision
    from ctinterp_dagster.physics.acquisition import Auto
    from ctinterp_dagster.physics.profile import Profile

LEARNED = (REGRESSION, judged().name)
METHODS = (*names(Role.RIVAL), *LEARNED)
OWN = "ctinterp"
PROTOCOLS = (OWN, "rplhr", "decimation")


@dataclass(frozen=True)
class Options:
    """What the command is given; each field is the option of its name, or of the name beside it."""

    thin: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...]  # --pair and --pairs
    protocol: str
    factor: float | None
    spacing_mm: float | None
    profile: "Profile | Auto | None"
    thin_mm: float | None  # --thin-thickness
    model: Path | None
    methods: tuple[str, ...]
    device: str
    memory_gib: float
    mixed_precision: "MixedPrecision"
    json: Path | None

    def __post_init__(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: some do not.
        """
        if not self.thin and not self.pairs:
            raise click.UsageError("give THIN volumes, --pair THICK THIN or --pairs FOLDER")
        if self.protocol == "rplhr" and self.thin:
            raise click.UsageError("--protocol rplhr scores real pairs: give --pair THICK THIN or --pairs FOLDER")
        if self.protocol == "decimation":
            self._check_decimation()
        if self.thin and (self.profile == "auto" or isinstance(self.profile, SampledProfile)):
            raise click.UsageError("THIN is thickened with a named profile: give --profile box or another")
        of_thin = {"--spacing": self.spacing_mm, "--factor": self.factor, "--thin-thickness": self.thin_mm}
        for option in (name for name, value in of_thin.items() if value and not self.thin):
            raise click.UsageError(f"{option} is for THIN volumes: a pair is compared as its two scans are")
        for paths in (self.thin, tuple(thick for thick, _ in self.pairs)):
            if len(set(paths)) < len(paths):
                raise click.UsageError("a scan is given twice: give each once")

    def _check_decimation(self) -> None:
        if self.pairs or self.profile or self.spacing_mm or self.thin_mm:
            raise click.UsageError(
                "--protocol decimation takes THIN volumes and --factor: leave the other options of slices out"
            )
        if self.factor and not self.factor.is_integer():
            raise click.UsageError(
                f"--protocol decimation keeps every n-th slice, got --factor {self.factor:g}: give a whole number"
            )
