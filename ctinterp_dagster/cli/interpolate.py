"""Thick scans in, thin scans out: the command."""

from pathlib import Path
from typing import Any

import click

from ctinterp_dagster.cli.options.interpolate import METHODS, Options
from ctinterp_dagster.cli.options.model_option import ModelType
from ctinterp_dagster.cli.options.number import Number
from ctinterp_dagster.cli.options.profile_option import METAVAR, ProfileType


@click.command(epilog="Example: ctinterp interpolate series/ -o thin.nii.gz --spacing 1 --std std.nii.gz")
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path),
    help="NIfTI, MHA, NRRD, or a new folder for DICOM; of many scans the folder of all results",
)  # fmt: skip
@click.option("--all", "every", is_flag=True, help="every thick scan of INPUT, each a result of its own")
@click.option("--name", metavar="PATTERN", help="name of each result of many, made of {path}, {name}, {series}, "
              "{number}, {date} or {uid}; without an ending a folder of DICOM [{path}.nii.gz]")  # fmt: skip
@click.option("--format", "as_dicom", type=click.Choice(["auto", "dicom"]), default="auto", show_default=True,
              callback=lambda _, __, value: value == "dicom", help="of --output; auto: by its name")  # fmt: skip
@click.option("--multiframe", "as_multiframe", is_flag=True, help="write DICOM as one enhanced CT file")
@click.option(
    "--spacing", "spacing_mm", type=Number(min=0, min_open=True), help="distance of the thin slices in mm [1]"
)
@click.option("--factor", type=Number(min=1, min_open=True),
              help="thin slices for each thick one, such as 5 or 2.5; instead of --spacing")  # fmt: skip
@click.option("--thickness", "thickness_mm", type=Number(min=0, min_open=True),
              help="thickness of the thick slices in mm [as tagged, unless the images contradict it]")  # fmt: skip
@click.option("--thin-thickness", "thin_mm", type=Number(min=0, min_open=True),
              help="thickness of thin slices in mm; more than --spacing makes them overlap [--spacing]")  # fmt: skip
@click.option("--profile", type=ProfileType(), metavar=METAVAR, default="auto", show_default=True,
              help="how a thick slice averages along z; auto finds it from noise and tags, FILE has "
              "the columns offset_mm,weight")  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True,
              help="the model, or a classical method whose result gives the thick slices back too")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1),
              help="network evaluations for each sample [1, or 8 where the model cannot draw in one]")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=2), default=8, show_default=True,
              help="how many samples --std and --draws take; the estimate needs none")  # fmt: skip
@click.option("--sampler", type=click.Choice(["adams", "ddim", "ddpm"]), default="adams", show_default=True,
              help="how samples are drawn; adams (DDIM to second order) keeps their noise in few steps")  # fmt: skip
@click.option("--std", type=click.Path(path_type=Path), help="file for the standard deviation of each voxel, in HU")
@click.option(
    "--draws",
    type=click.Path(path_type=Path),
    help="folder for the samples: volumes that fit the scan as well as the estimate",
)
@click.option("--label", "labels", nargs=2, multiple=True, type=click.Path(path_type=Path), metavar="MAP OUT",
              help="bring a label MAP (a segmentation) to the thin slices, as OUT; may be repeated")  # fmt: skip
@click.option("--model", type=ModelType(path_type=Path),
              help="file of another model than the released one; latent is the released latent diffusion")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="auto takes a GPU where there is one")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="of the samples: the same seed gives the same bytes")  # fmt: skip
@click.option(
    "--series",
    help="which scan of several: its name, UID, description, date or number (`ctinterp scans check` has them)",
)
@click.option("--memory-gib", type=Number(min=0.25), default=3.0, show_default=True, help="memory for the networks")
@click.option("--mixed-precision", type=click.Choice(["auto", "no", "bf16", "int8"]), default="auto",
              show_default=True,
              help="what the networks compute in: no is float32, auto the fastest of the processor or GPU")  # fmt: skip
@click.option(
    "--preview", type=click.Path(path_type=Path), help="PNG with coronal and sagittal planes, before and after"
)
@click.option("--json", type=click.Path(path_type=Path),
              help="write what was done as JSON; of many scans each adds a line")  # fmt: skip
@click.option(
    "--force",
    is_flag=True,
    help="replace outputs that exist (never the input), accept values that are not HU, write doubtful results",
)
def command(**given: Any) -> None:
    """Turn thick-slice CT into thin-slice CT.

    INPUT is a NIfTI, MHA or NRRD file, or a folder or zip of DICOM. The thin volume covers the same extent, in the
    same place in space. Averaged again it gives the thick slices: |Ax - y| in the last line is the mean difference.
    Slices of a tilted gantry are straightened. Stretches of different slice distances are joined.

    The result is the posterior mean: the volume to be expected, smoother than a real thin scan. --std writes how
    uncertain each voxel is. --draws writes samples: volumes that fit the scan as well, with noise like a real one.

    The released model was measured on chests, a head and phantoms, with slices 1.2 to 12 times as far apart as the
    thin ones. A run outside of that says so. Research use only, not a medical device.

    With several INPUTs, --all or --name, each thick scan becomes a result in the folder --output, with a record
    beside it. A scan that these options and this model restored before is skipped. One that fails does not end the
    others, and makes the exit code 1. --std, --draws, --preview and --label then take patterns as --name does. The
    MAP of --label is looked for below the folder of all INPUTs.
    """
    options = Options(**given)
    from ctinterp_dagster.cli.actions import batch, interpolate

    run = batch.run if options.of_many else interpolate.run
    run(options)
