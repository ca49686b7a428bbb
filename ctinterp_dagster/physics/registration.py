"""Interpolation along the motion of the anatomy between neighbouring thick slices."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ctinterp_dagster.physics.interpolators import nearest
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.window import MAISI

SHRINK_FACTORS = (4, 2, 1)  # in-plane shrink factors, coarse to fine
SMALLEST_LEVEL = 16  # pixels along the shorter side
ITERATIONS = 20
SMOOTHING_PIXELS = 1.5  # standard deviation of the Gaussian that smooths the displacement in each iteration


def _image(slice_hu: Tensor) -> sitk.Image:
    scaled = (MAISI.clip(slice_hu) - MAISI.low_hu) / MAISI.width_hu  # beyond it only metal and padding differ
    return sitk.GetImageFromArray(scaled.numpy())


def _at_level(image: sitk.Image, shrink: int) -> sitk.Image:
    if shrink == 1:
        return image
    return sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, shrink / 2), [shrink, shrink])


def _displacement(fixed: sitk.Image, moving: sitk.Image) -> Tensor:
    """Displacement (dy, dx) in pixels: moving(q + d(q)) looks like fixed(q).

    Args:
        fixed: (y, x).
        moving: (y, x), the same size.

    Returns:
        (2, y, x) float32, pixels.

    Source: Vercauteren et al. 2009, Diffeomorphic demons (the symmetric forces), NeuroImage 45(1).
    """
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(ITERATIONS)
    demons.SetStandardDeviations(SMOOTHING_PIXELS)
    demons.SetNumberOfThreads(1)
    levels = [s for s in SHRINK_FACTORS if s == 1 or min(fixed.GetSize()) >= SMALLEST_LEVEL * s]
    field = sitk.Image(fixed.GetSize(), sitk.sitkVectorFloat64, 2)
    for shrink in levels:
        fixed_level, moving_level = _at_level(fixed, shrink), _at_level(moving, shrink)
        start = sitk.Resample(field, fixed_level, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)
        field = demons.Execute(fixed_level, moving_level, start)
    xy = sitk.GetArrayFromImage(field).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(xy[..., ::-1].transpose(2, 0, 1)))


def _warp(slice_hu: Tensor, displacement: Tensor) -> Tensor:
    """The slice (y, x) read at displaced positions: (n, 2, y, x) pixels give (n, y, x)."""
    height, width = slice_hu.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + displacement[:, 1]) * (2 / max(width - 1, 1)) - 1
    y = (rows + displacement[:, 0]) * (2 / max(height - 1, 1)) - 1
    source = slice_hu.expand(len(displacement), 1, height, width)
    grid = torch.stack([x, y], dim=-1)
    return grid_sample(source, grid, mode="bicubic", padding_mode="border", align_corners=True)[:, 0]


def _between(lower: Tensor, upper: Tensor, fraction: npt.NDArray[np.float64]) -> Tensor:
    """Slices at the given fractions of the way from one slice to the next.

    What is at q at fraction t came from q - t d(q) in the lower slice and goes to q + (1 - t) d(q) in the upper one;
    d is the mean of the forward and the reversed backward displacement, so that no direction is preferred.

    Args:
        lower: (y, x) HU.
        upper: (y, x) HU, the next one.
        fraction: (n,) from 0 at the lower one to 1.

    Returns:
        (n, y, x) HU.
    """
    images = _image(lower), _image(upper)
    motion = (_displacement(*images) - _displacement(*images[::-1])) / 2
    t = torch.from_numpy(fraction).float()[:, None, None]
    from_lower = _warp(lower, -t[:, None] * motion)
    from_upper = _warp(upper, (1 - t)[:, None] * motion)
    return torch.lerp(from_lower, from_upper, t)


def registered(thick: Tensor, positions: npt.NDArray[np.float64]) -> Tensor:
    """Interpolate between registered neighbours; beyond the outer centres hold the outer slices.

    Args:
        thick: (n_thick, y, x) HU.
        positions: (n,) float64, in units of thick slice indices.

    Returns:
        (n, y, x) HU, float32, on the CPU.

    Source: Penney et al. 2004, Registration-based interpolation, IEEE Trans. Med. Imaging 23(7).
    """
    slices = thick.detach().to("cpu", torch.float32)
    if len(slices) == 1:
        return nearest(slices, positions)
    held = np.clip(positions, 0, len(slices) - 1)
    pair = np.minimum(np.floor(held).astype(int), len(slices) - 2)
    result = slices.new_empty(len(positions), *slices.shape[1:])

    def made(k: int) -> Tensor:
        return _between(slices[k], slices[k + 1], held[pair == k] - k)

    lower = np.unique(pair).tolist()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for k, between in zip(lower, pool.map(made, lower), strict=True):
            result[torch.from_numpy(pair == k)] = between
    return result


def registration_projected(thick: Tensor, operator: ThickeningOperator) -> Tensor:
    """Interpolation between registered neighbours, made to explain the thick slices exactly.

    Args:
        thick: (n_thick, y, x) HU.
        operator: what turned thin into thick.

    Returns:
        (n_thin, y, x) HU.
    """
    estimate = registered(thick, operator.thin_positions).to(thick)
    return operator.project(estimate, thick)
