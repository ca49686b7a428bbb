"""Training volumes, from which boxes are cut: on a GPU that holds them all, else where they lie."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ctinterp_dagster.training.random_crops import integer


@dataclass(frozen=True)
class ThinVolume:
    """A training volume.

    Attributes:
        hu: (z, y, x) int16 HU.
        spacing_mm: (z, y, x).
        weight: how often it is drawn, against the others.
        case: its id.
        thin_thickness: width at half maximum of its slices, over their distance; they overlap where it is above 1.
    """

    hu: Tensor
    spacing_mm: tuple[float, float, float]
    weight: float = 1.0
    case: str = ""
    thin_thickness: float = 1.0


class AxisOrder(NamedTuple):
    """Which axes of a volume, 0 to 2, are the z, y and x of what is cut out of it."""

    z: int
    y: int
    x: int


AS_STORED = AxisOrder(0, 1, 2)


@dataclass(frozen=True)
class Box:
    """A box of voxels of one volume, in any direction along its axes.

    Attributes:
        first: index of its first voxel among all volumes' voxels.
        steps: how far apart the voxels are there along the box's own z, y and x; negative for a mirrored axis.
        depth: slices.
    """

    first: int
    steps: tuple[int, int, int]
    depth: int


class Boxes(NamedTuple):
    """The boxes of a batch.

    Attributes:
        first: (b,) int64, index of each first voxel among all volumes' voxels.
        steps: (b, 3) int64, how far apart voxels are there along the box's own z, y and x.
        depth: (b,) int64, slices.
    """

    first: Tensor
    steps: Tensor
    depth: Tensor


def stacked(boxes: Sequence[Box]) -> Boxes:
    """The b boxes of a batch as tensors of int64: first (b,), steps (b, 3) and depth (b,)."""
    return Boxes(
        torch.tensor([box.first for box in boxes]),
        torch.tensor([box.steps for box in boxes]),
        torch.tensor([box.depth for box in boxes]),
    )


class ResidentVolumes:
    """Volumes of int16, end to end by their numbering; a GPU with room for them gets a copy."""

    def __init__(self, volumes: Sequence[ThinVolume]) -> None:
        self._volumes = [volume.hu.contiguous() for volume in volumes]
        self._starts = [0, *accumulate(hu.numel() for hu in self._volumes)]
        self._copies: dict[torch.device, Tensor | None] = {}

    def random_box(self, index: int, order: AxisOrder, size: tuple[int, int, int], generator: torch.Generator) -> Box:
        """A box anywhere in a volume, mirrored along each axis half of the time, a square plane transposed likewise.

        Args:
            index: of the volume.
            order: of the volume's axes.
            size: of the box, (z, y, x).
            generator: of all chance.

        Returns:
            The index of its first voxel, a step for each axis, and its depth.
        """
        shape = self._volumes[index].shape
        strides = (shape[1] * shape[2], shape[2], 1)
        first, steps = self._starts[index], []
        for axis, length in zip(order, size, strict=True):
            mirrored = integer(2, generator)
            start = integer(shape[axis] - length + 1, generator) + (length - 1 if mirrored else 0)
            first += start * strides[axis]
            steps.append(-strides[axis] if mirrored else strides[axis])
        if size[1] == size[2] and integer(2, generator):
            steps[1:] = reversed(steps[1:])
        return Box(first, (steps[0], steps[1], steps[2]), size[0])

    def cut(self, boxes: Boxes, size: tuple[int, int, int]) -> Tensor:
        """The values in the boxes, zero beyond the depth of each; on their device.

        Args:
            boxes: which.
            size: (z, y, x) of the largest.

        Returns:
            (b, z, y, x) float32 HU.
        """
        first, steps, depth = boxes
        device = first.device
        copy = self._copy_on(device)
        z, y, x = (torch.arange(n, device=device) for n in size)
        inside = z < depth[:, None]
        along_z = first[:, None] + steps[:, :1] * torch.where(inside, z, 0)
        plane = (steps[:, 1:2] * y)[:, :, None] + (steps[:, 2:3] * x)[:, None]
        index = along_z[:, :, None, None] + plane[:, None]
        values = self._gathered(index.cpu()).to(device) if copy is None else copy[index]
        return values.float() * inside[:, :, None, None]

    def _gathered(self, index: Tensor) -> Tensor:
        """Voxels by their numbers, (b, z, y, x), those of each box in one volume."""
        owners = [bisect(self._starts, int(box[0, 0, 0])) - 1 for box in index]
        return torch.stack(
            [self._volumes[n].reshape(-1)[box - self._starts[n]] for n, box in zip(owners, index, strict=True)]
        )

    def _copy_on(self, device: torch.device) -> Tensor | None:
        """All voxels on a GPU; None on the CPU, and where they would take more than half of its free memory."""
        if device not in self._copies:
            fits = device.type == "cuda" and 4 * self._starts[-1] <= torch.cuda.mem_get_info(device)[0]
            self._copies[device] = self._copied(device) if fits else None
        return self._copies[device]

    def _copied(self, device: torch.device) -> Tensor:
        copy = torch.empty(self._starts[-1], dtype=torch.int16, device=device)
        for start, hu in zip(self._starts, self._volumes, strict=False):
            copy[start : start + hu.numel()] = hu.reshape(-1)
        return copy
