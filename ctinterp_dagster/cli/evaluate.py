"""Held-out thin scans, thickened, restored with every method, and scored: the command."""

from pathlib import Path
from typing import Any

import click

from ctinterp_dagster.cli.options.evaluate import METHODS, OWN, PROTOCOLS, Options
from ctinterp_dagster.cli.options.model_option import ModelType
from ctinterp_dagster.cli.options.number import Number
from ctinterp_dagster.cli.options.profile_option import METAVAR, ProfileType

FOLDERS = (("thick", "thin"), ("5mm", "1mm"))


def pairs_in(_: click.Context, __: click.Parameter, folder: Path | None) -> tuple[tuple[Path, Path], ...]:
    """The thick and thin scans of one name in `thick` and `thin`, or `5mm` and `1mm`, below a folder.

    Args:
        folder: holds both folders; None gives no pairs.

    Returns:
        Paths (thick, thin), sorted by name; empty without a folder.

    Raises:
        BadParameter: no such folders, no scans in them, or scans without a partner.
    """
    if folder is None:
        return ()
    sides = [(folder / thick, folder / thin) for thick, thin in FOLDERS if (folder / thick).is_dir()]
    if len(sides) != 1:
        inside = sorted(path.parent.name for path in folder.glob("*/5mm"))
        advice = f"; give one of {', '.join(inside)} below it" if inside else ""
        raise click.BadParameter(f"{folder} holds no folders thick and thin, nor 5mm and 1mm{advice}")
    thick, thin = ({path.name: path for path in side.glob("[!.]*")} for side in sides[0])
    for side, lacking in ((sides[0][0], thin.keys() - thick.keys()), (sides[0][1], thick.keys() - thin.keys())):
        if lacking:
            names = f"{', '.join(sorted(lacking)[:9])}{', ...' if len(lacking) > 9 else ''}"
            raise click.BadParameter(f"{side} lacks the partner of {names}: add it, or take the other away")
    if not thick:
        raise click.BadParameter(f"{folder} holds no scans: expected files of one name in both folders")
    return tuple((thick[name], thin[name]) for name in sorted(thick))


def parse_methods(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Split a,b,c and refuse unknown names.

    Args:
        value: names of `METHODS`, with commas between.

    Returns:
        The names, in their order.

    Raises:
        BadParameter: a name is unknown.
    """
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
    help="a real thick scan, and the thin one that it is compared with; may be repeated",
)
@click.option("--pairs", "folder", type=click.Path(path_type=Path), callback=pairs_in, metavar="FOLDER",
              help="all pairs of a folder: of one name in its `thick` and `thin`, or `5mm` and `1mm`")  # fmt: skip
@click.option("--protocol", type=click.Choice(PROTOCOLS), default=OWN, show_default=True,
              help="how to score: as here, as the paper on RPLHR-CT (pairs), or as that on I3Net (THIN, of "
              "which every --factor-th slice is kept [2])")  # fmt: skip
@click.option(
    "--factor", type=Number(min=1, min_open=True), help="thin slices for each thick one, such as 5 or 2.5 [5]"
)
@click.option("--spacing", "spacing_mm", type=Number(min=0, min_open=True),
              help="slice distance in mm to restore to: the truth is means of THIN's slices [THIN's own]")  # fmt: skip
@click.option(
    "--profile",
    type=ProfileType(),
    metavar=METAVAR,
    help="how a thick slice averages along z [box of THIN, auto of a pair]",
)
@click.option("--thin-thickness", "thin_mm", type=Number(min=0, min_open=True),
              help="thickness in mm of THIN's slices, where they overlap; the restored ones then do")  # fmt: skip
@click.option("--model", type=ModelType(path_type=Path),
              help="file of another model than the released one; latent is the released latent diffusion")  # fmt: skip
@click.option(
    "--methods", callback=parse_methods, default=",".join(METHODS), help="methods to score, with commas between [all]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="auto takes a GPU where there is one")  # fmt: skip
@click.option("--memory-gib", type=Number(min=0.25), default=3.0, show_default=True, help="memory for the networks")
@click.option("--mixed-precision", type=click.Choice(["no", "bf16", "int8"]), default="no", show_default=True,
              help="what the networks compute in: no is float32; bf16 and int8 are faster where there are "
              "instructions for them")  # fmt: skip
@click.option("--json", type=click.Path(path_type=Path),
              help="write each score as JSON as it is made; a later run goes on from there")  # fmt: skip
def command(**given: Any) -> None:
    """Score every method on THIN scans that the model has not seen.

    Each scan is thickened, restored, and compared with itself. With --spacing it is compared with means of its
    slices, and the thick slices are FACTOR times as far apart as these. A --pair is a real thick scan, compared with
    its thin partner by position in mm. `psnr_db` is in the window [-1000, 1000] HU, and leaves out the slices of one
    thick slice at each end. Research use only, not a medical device.
    """
    given["pairs"] += given.pop("folder")
    options = Options(**given)
    from ctinterp_dagster.cli.actions.evaluate import run

    run(options)
