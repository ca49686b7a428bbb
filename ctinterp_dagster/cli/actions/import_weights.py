"""Weights of MAISI's autoencoder into the project, with their card."""

import subprocess
import sys
from pathlib import Path

import click

from ctinterp_dagster.cli import prerequisites
from ctinterp_dagster.cli.actions.verify import show, verify_file
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import write_json


def run(path: Path, source: str, licence: str) -> None:
    """Verify a file and write it to data/maisi as safetensors, with its card, under DVC.

    Args:
        path: a safetensors or torch file.
        source: where it comes from, for the card.
        licence: of the weights, for the card.

    Raises:
        CtinterpError: it is refused, there is no project here, or DVC refuses.
    """
    layout = prerequisites.project()
    autoencoder, verified = verify_file(path)
    weights = layout.maisi / "autoencoder.safetensors"
    autoencoder.save(weights)
    card = {"source": source, "licence": licence, "source_sha256": verified.sha256, "sha256": sha256sum(weights)}
    known = {"tensors": verified.tensors, "parameters": verified.parameters, "source_dtype": verified.dtype}
    write_json(layout.maisi / "card.json", card | known)
    show(path, verified)
    click.echo(f"{weights}: written, with card.json")
    track_weights(layout, weights)


def track_weights(layout: Layout, weights: Path) -> None:
    """Put a file under DVC where the folder is a DVC project.

    Args:
        layout: where things are.
        weights: the file.

    Raises:
        MissingInputError: DVC refuses.
    """
    if not (layout.root / ".dvc").is_dir():
        click.echo("no DVC project here: the weights are not tracked")
        return
    added = subprocess.run(  # noqa: S603 (no shell; the interpreter's own DVC)
        [sys.executable, "-m", "dvc", "--quiet", "add", str(weights)], capture_output=True, text=True, check=False
    )
    if added.returncode:
        raise MissingInputError(f"dvc add {weights} failed: {added.stderr.strip().splitlines()[-1]}")
    click.echo(f"under DVC: git add {weights}.dvc {weights.parent}/card.json; next: ctinterp preset gpu, dvc repro")
