"""Thick scans in, thin scans out: the command."""

from pathlib import Path
from typing import Any

import click

from ctinterp_dagster.cli.options.interpolate import METHODS, Options
from ctinterp_dagster.cli.options.number import Number
from ctinterp_dagster.cli.options.profile_option import METAVAR, ProfileType


@click.command(epilog="Example: ctinterp interpolate series/ -o thin.nii.gz --spacing 1 --std std.nii.gz")
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path),
    help="NIfTI, MHA, NRRD, or a new folder for DICOM; of many scans the folder of all results",
)  # fmt: skip
@click.option("--all", "every", is_flag=True, help="every thick scan of INPUT, each a result of its own")
@click.option("--name", metavar="PATTERN", help="of each result of many, with {path}, {name}, {series}, {number}, "
              "{date} or {uid}; without an ending DICOM [{path}.nii.gz]")  # fmt: skip
@click.option("--format", "as_dicom", type=click.Choice(["auto", "dicom"]), default="auto", show_default=True,
              callback=lambda _, __, value: value == "dicom", help="auto goes by the output's name")  # fmt: skip
@click.option("--multiframe", "as_multiframe", is_flag=True, help="write DICOM as one enhanced CT file")
@click.option("--spacing", "spacing_mm", type=Number(min=0, min_open=True), help="slice distance in mm [1]")
@click.option("--factor", type=Number(min=1, min_open=True),
              help="thin slices a thick one, whole or not; instead of --spacing")  # fmt: skip
@click.option("--thickness", "thickness_mm", type=Number(min=0, min_open=True),
              help="thickness of the scan's slices in mm [as tagged, unless the stack contradicts it]")  # fmt: skip
@click.option("--thin-thickness", "thin_mm", type=Number(min=0, min_open=True),
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
@click.option("--std", type=click.Path(path_type=Path), help="file for the standard deviation in HU")
@click.option(
    "--draws", type=click.Path(path_type=Path), help="folder for the samples, each a file, or DICOM as the output"
)
@click.option("--label", "labels", nargs=2, multiple=True, type=click.Path(path_type=Path), metavar="MAP OUT",
              help="bring a map of labels of the scan to the thin slices by their edges; may be repeated")  # fmt: skip
@click.option("--model", type=click.Path(path_type=Path), help="model [released]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="the same seed, the same bytes")
@click.option(
    "--series", help="of several scans the one of this name, UID, description, date or number (see scans check)"
)
@click.option("--memory-gib", type=Number(min=0.25), default=3.0, show_default=True, help="working memory")
@click.option("--mixed-precision", type=click.Choice(["auto", "no", "bf16", "int8"]), default="auto",
              show_default=True, help="no is float32, auto the fastest that the processor or GPU knows")  # fmt: skip
@click.option("--preview", type=click.Path(path_type=Path), help="PNG of coronal and sagittal planes, before and after")
@click.option("--json", type=click.Path(path_type=Path),
              help="write what was done as JSON; of many scans a line is added for each")  # fmt: skip
@click.option(
    "--force",
    is_flag=True,
    help="replace outputs that exist (never the input), take values that are no HU, write doubtful results",
)
def command(**given: Any) -> None:
    """Turn thick-slice CT into thin-slice CT.

    INPUT is a NIfTI, MHA or NRRD file, or a folder or zip of DICOM. The thin volume covers the extent of the thick
    one, in the same place in space, and gives the measured slices when it is averaged again: |Ax - y| tells how
    nearly. Slices of a tilted gantry are straightened, and stretches of uneven slices joined. It is the posterior
    mean: what is to be expected, smoother than a real thin scan. --draws writes samples of what may have been, and
    --std how far they spread. Without --model the released one is used; it was measured on chests, a head and
    phantoms, with slices 1.2 to 12 times as far apart as the thin ones; a run outside of that says so. Research use
    only, not a medical device.

    With several INPUTs, --all or --name, each thick scan becomes a result of its own in the folder of --output, and a
    record beside it. What is done by these options and this model is skipped; one that fails does not end the others,
    and makes the exit code 1. --std, --draws, --preview and --label then take patterns as --name does; maps are looked
    for below the folder of all INPUTs.
    """
    options = Options(**given)
    from ctinterp_dagster.cli.actions import batch, interpolate

    run = batch.run if options.of_many else interpolate.run
    run(options)
