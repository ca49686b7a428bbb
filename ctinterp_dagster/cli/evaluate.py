"""Held-out thin scans, thickened, restored with every method, and scored: the options."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ctinterp_dagster.cli.profile import METAVAR, ProfileType
from ctinterp_dagster.methods import REGRESSION, Role, judged, names
from ctinterp_dagster.physics.profile import SampledProfile

if TYPE_CHECKING:
    from ctinterp_dagster.model.settings import MixedPrecision
    from ctinterp_dagster.physics.profile import Profile
    from ctinterp_dagster.physics.recognition import Auto

LEARNED = (REGRESSION, judged().name)
METHODS = (*names(Role.RIVAL), *LEARNED)


@dataclass(frozen=True)
class Options:
    """What the command is given; each field is the option of its name, or of the name beside it."""

    thin: tuple[Path, ...]
    pairs: tuple[tuple[Path, Path], ...]  # --pair
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
            raise click.UsageError("give THIN volumes or --pair THICK THIN")
        if self.thin and (self.profile == "auto" or isinstance(self.profile, SampledProfile)):
            raise click.UsageError("THIN is thickened with a shape: give --profile box or another")
        told = {"--spacing": self.spacing_mm, "--factor": self.factor, "--thin-thickness": self.thin_mm}
        for option in (name for name, value in told.items() if value and not self.thin):
            raise click.UsageError(f"{option} is for THIN volumes: a pair is compared as its two scans are")
        for paths in (self.thin, tuple(thick for thick, _ in self.pairs)):
            if len(set(paths)) < len(paths):
                raise click.UsageError("a scan is given twice: give each once")


def parse_methods(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split a,b,c and refuse unknown names."""
    names = tuple(value.split(","))
    for name in names:
        if name not in METHODS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}")
    return names


@click.command(epilog="Example: ctinterp evaluate held_out/*.nii.gz --methods cubic,model --json scores.json")
@click.argument("thin", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--pair",
    "pairs",
    nargs=2,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="THICK THIN",
    help="a real thick scan and the thin one that it is to be restored to; may be repeated",
)
@click.option("--factor", type=click.FloatRange(min=1, min_open=True), help="thin slices a thick one, whole or not [5]")
@click.option("--spacing", "spacing_mm", type=click.FloatRange(min=0, min_open=True),
              help="slice distance in mm to restore to; the truth is means of THIN's slices [THIN's own]")  # fmt: skip
@click.option("--profile", type=ProfileType(), metavar=METAVAR, help="of thick slices [of THIN box, of a pair auto]")
@click.option("--thin-thickness", "thin_mm", type=click.FloatRange(min=0, min_open=True),
              help="thickness in mm of THIN's slices, where they overlap: the model's then do")  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="model [released]")
@click.option("--methods", callback=parse_methods, default=",".join(METHODS), help="which, with commas [all]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--memory-gib", type=click.FloatRange(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--mixed-precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True,
              help="bf16 is faster on processors and GPUs with instructions for it")  # fmt: skip
@click.option("--json", type=click.Path(path_type=Path),
              help="write the records as JSON, each as it is made; a later run goes on from there")  # fmt: skip
def command(**given: Any) -> None:
    """Score every method on THIN volumes that the model has not seen.

    Each is thickened, restored, and compared with itself, or with its means every --spacing mm: what `interpolate
    --spacing` gives of a scan whose slices are FACTOR times as far apart. A real thick scan is compared with its thin
    partner, by position in mm. `psnr_db` is in the window [-1000, 1000] HU without the slices of one thick slice at
    each end. Research use only, not a medical device.
    """
    from ctinterp_dagster.cli.work.evaluate import run

    run(Options(**given))
