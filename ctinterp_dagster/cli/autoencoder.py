"""Weights of MAISI's autoencoder: are they whole and safe, and into the project with their card."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.weights import read_weights
from ctinterp_dagster.records import file_hash, write_json
from ctinterp_dagster.scan.phantom import phantom
from ctinterp_dagster.training.evidence import to_unit

PHANTOM_ZYX = (16, 64, 64)


@dataclass(frozen=True)
class Verified:
    """What is known of a file of weights that was accepted.

    Attributes:
        tensors: how many there are; none is missing, surplus, misshapen or not finite.
        parameters: numbers in them.
        sha256: of the file.
        dtype: of the tensors in the file.
        latent_mean: of the latent of the built-in phantom, raw.
        latent_std: its standard deviation.
    """

    tensors: int
    parameters: int
    sha256: str
    dtype: str
    latent_mean: float
    latent_std: float


def verify_file(path: Path) -> tuple[MaisiAutoencoder, Verified]:
    """Load a file of weights and encode the phantom with it.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is refused; the message says why.
    """
    autoencoder = load_autoencoder(path)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in read_weights(path).values()})
    thin = phantom(0, shape_zyx=PHANTOM_ZYX, spacing_mm=(5.0, 5.0, 5.0), noise_hu=10.0)
    latent = autoencoder.encode(to_unit(torch.from_numpy(thin.hu))).mean
    parameters = list(autoencoder.parameters())
    return autoencoder, Verified(
        tensors=len(parameters),
        parameters=sum(p.numel() for p in parameters),
        sha256=file_hash(path),
        dtype=", ".join(dtypes),
        latent_mean=float(latent.mean()),
        latent_std=float(latent.std()),
    )


def show(verified: Verified) -> None:
    """Print what is known."""
    click.echo(f"{verified.tensors}/{verified.tensors} tensors, {verified.parameters:,} parameters, {verified.dtype}")
    click.echo(f"sha256 {verified.sha256}")
    click.echo(f"latent of the phantom: mean {verified.latent_mean:.6f}, standard deviation {verified.latent_std:.6f}")


@click.group
def command() -> None:
    """Verify and import weights of MAISI's autoencoder (docs/maisi.md says where they are)."""


@command.command
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path) -> None:
    """Check that PATH holds the weights of MAISI's autoencoder, whole; nothing in it is run.

    PATH is safetensors, or a torch file, with or without an outer key such as `state_dict`. Exits 1 with one line if
    it is refused.
    """
    show(verify_file(path)[1])


@command.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--source", required=True, help="where the file comes from, e.g. an address and a revision")
@click.option("--licence", required=True, help="the licence that came with it")
def import_(path: Path, source: str, licence: str) -> None:
    """Verify PATH and write it to data/maisi as safetensors, with its card, under DVC.

    `ctinterp preset gpu` uses it. With DVC installed, `dvc add` puts the weights under it: commit the .dvc file and
    the card.
    """
    layout = Layout(Path())
    if not layout.params.exists():
        raise MissingInputError("params.yaml is not here: run in the project's root, the folder of dvc.yaml")
    autoencoder, verified = verify_file(path)
    weights = layout.maisi / "autoencoder.safetensors"
    autoencoder.save(weights)
    card = {"source": source, "licence": licence, "source_sha256": verified.sha256, "sha256": file_hash(weights)}
    known = {"tensors": verified.tensors, "parameters": verified.parameters, "source_dtype": verified.dtype}
    write_json(layout.maisi / "card.json", card | known)
    show(verified)
    click.echo(f"{weights}: written, with card.json")
    track(layout, weights)


def track(layout: Layout, weights: Path) -> None:
    """Put a file under DVC where the folder is a DVC project.

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
