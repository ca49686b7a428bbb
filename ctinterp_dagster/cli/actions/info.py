"""What is installed and what it can use."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click
import torch

from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.interpolation import RELEASED, load_checkpoint
from ctinterp_dagster.model.device import pick_device

PACKAGES = ("ctinterp", "torch", "numpy", "SimpleITK", "nibabel", "scikit-image", "accelerate", "dvc", "dagster")


def installed(package: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run() -> None:
    """Print the versions of Python and of packages, the device, and the released model with its SHA-256.

    Raises:
        MissingInputError: the released model is not there.
        CheckpointError: it cannot be read.
    """
    click.echo(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        click.echo(f"{package:13} {installed(package)}")
    click.echo(f"device        {pick_device('auto')} (CPU threads: {torch.get_num_threads()})")
    model = load_checkpoint().model
    parameters = sum(p.numel() for p in model.parameters())
    click.echo(f"model         released, {parameters:,} parameters, sha256 {sha256sum(RELEASED)[:16]}")
    click.echo("              research use only, not a medical device")
