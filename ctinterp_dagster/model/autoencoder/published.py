"""What is known of the files that NVIDIA publishes with MAISI."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ctinterp_dagster.errors import CheckpointError
from ctinterp_dagster.model.autoencoder.weights import read_content

FIRST = "encoder.blocks.0.conv.conv.weight"


@dataclass(frozen=True)
class Release:
    """Where an autoencoder of MAISI's is published.

    Attributes:
        repository: on Hugging Face.
        licence: that its model card names.
    """

    repository: str
    licence: str


RELEASES = {
    "autoencoder_v1.pt": Release("nvidia/NV-Generate-CT", "NVIDIA Open Model License"),
    "autoencoder_v2.pt": Release("nvidia/NV-Generate-MR", "NVIDIA OneWay Noncommercial License"),
}
"""By the name of the file: v1 and v2 have the same names and shapes of tensors, so nothing else tells them apart."""


def refuse_other_networks(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse MAISI's other autoencoder, of label maps, whose tensors have the same kind of names.

    Args:
        path: of the file, for the message.
        tensors: of the file, by name, of any shape.

    Raises:
        CheckpointError: so it is; the message says which file is meant.
    """
    first = tensors.get(FIRST)
    if first is not None and first.ndim == 5 and first.shape[1] != 1:
        raise CheckpointError(
            f"{path} reads {first.shape[1]} channels, a CT has one: it is an autoencoder of label maps, such as "
            f"MAISI's mask_generation_autoencoder.pt; take {' or '.join(RELEASES)}"
        )


def scale_factor(path: Path) -> float:
    """The factor by which latents were multiplied for a diffusion model; it lies in the model's checkpoint.

    Args:
        path: the checkpoint of a diffusion model.

    Returns:
        A finite number above 0.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it cannot be read, or has no positive finite `scale_factor`.

    Source: Rombach et al. 2022, appendix G: 1 / standard deviation of the latents of the first batch.
    """
    found = torch.as_tensor(read_content(path).get("scale_factor", 0.0))
    value = float(found) if found.numel() == 1 and found.dtype.is_floating_point else 0.0
    if not 0 < value < float("inf"):
        raise CheckpointError(
            f"{path} has no scale_factor: expected the checkpoint of a diffusion model, such as MAISI's "
            "diff_unet_3d_rflow-ct.pt"
        )
    return value
