"""Weights of MAISI's autoencoder: are they whole and safe, how good are they, and into the project: the options."""

from pathlib import Path

import click

from ctinterp_dagster.cli.options.number import Number

PRECISIONS = ("no", "bf16", "fp16")


@click.group
def command() -> None:
    """Verify and import weights of MAISI's autoencoder (docs/maisi.md says where they are)."""


@command.command(short_help="Check a file of weights.")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, type=click.Path(path_type=Path))
@click.option("--diffusion", type=click.Path(path_type=Path), help="diffusion checkpoint, whose scale factor is shown")
@click.option(
    "--mixed-precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=["no"],
    show_default=True,
    help="numbers of the network on SCANS; may be repeated",
)
@click.option("--memory-gib", type=Number(min=0.25), default=8.0, show_default=True, help="memory for the network")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="write the rows as JSON")
def verify(
    path: Path,
    scans: tuple[Path, ...],
    diffusion: Path | None,
    precisions: tuple[str, ...],
    memory_gib: float,
    device: str,
    json_path: Path | None,
) -> None:
    """Check that PATH holds the weights of MAISI's autoencoder, all of them; no code in it is run.

    PATH is safetensors, or a torch file, with or without an outer key such as `state_dict`. A file that is refused
    makes the exit code 1. SCANS (NIfTI, folders of DICOM) are encoded and decoded: a table says how well each comes
    back, by window of HU.
    """
    from ctinterp_dagster.cli.actions.verify import run

    run(path, scans, diffusion, tuple(dict.fromkeys(precisions)), memory_gib, device, json_path)


@command.command("import", short_help="Check a file of weights, and bring it into the project.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--source", required=True, help="where the file comes from, e.g. an address and a revision")
@click.option("--licence", required=True, help="the licence that came with it")
def import_(path: Path, source: str, licence: str) -> None:
    """Verify PATH, and write it to data/maisi as safetensors with its card.

    `ctinterp preset gpu` uses it. Where DVC is installed, `dvc add` is run on it: commit the .dvc file and the card.
    """
    from ctinterp_dagster.cli.actions.import_weights import run

    run(path, source, licence)
