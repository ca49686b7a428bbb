"""How far a scan lies from another one of the same object: a tilted series, restored, against a straight scan of it.

    ctinterp interpolate TILTED/ -o restored.nii.gz --method cubic_projected
    python -m benchmarks.tilt restored.nii.gz STRAIGHT
    python -m benchmarks.tilt TILTED/ STRAIGHT --sheared    the same without ctinterp: what the headers say, as it is

`benchmarks.gantry` takes two series that are tilted opposite ways.

The positions in both headers are compared as if they were of one frame of reference. What is found is the error of the
place in the headers, of ours, and of the object, which may have moved. A motion of the object is rigid: it moves all
landmarks alike, and leaves their distances. So blocks of the scan are found one by one, and a rigid motion of all is
taken out.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.io.images import itk_image
from ctinterp_dagster.scan.padding import without_padding

SEEN_HU = (-1000.0, 1500.0)
EDGE = (4, 4, 1)  # voxels (x, y, z) inside of the padding that are not compared
LANDMARKS_MM = 50.0  # from the centre of what both see, along each axis and both ways
BLOCK_MM, EVERY_MM = 20.0, 22.0  # side and distance of blocks
STRUCTURE = 500.0  # least eigenvalue of a block's structure tensor, (HU/mm)^2: edges along every axis
REACH_MM = 4.0  # a block is looked for so far around its place
FAR_MM = 40.0  # blocks further apart than that say how long distances are

Array = npt.NDArray[np.float64]


class Seen(NamedTuple):
    """A scan within `SEEN_HU`, and a mask on its grid, 0 near what was not measured."""

    image: sitk.Image
    measured: sitk.Image


def scan_of(path: Path) -> Seen:
    """A scan as ctinterp reads it."""
    volume = read_scan(path).volume
    filled, padding = without_padding(volume)
    measured = np.ones(volume.hu.shape, np.uint8) if padding is None else (~padding.mask).astype(np.uint8)
    mask = sitk.BinaryErode(itk_image(volume, measured), EDGE)
    return Seen(itk_image(volume, filled.hu.clip(*SEEN_HU)), mask)


def sheared(folder: Path) -> Seen:
    """A tilted DICOM series as its headers place it.

    Read by pydicom; SimpleITK takes a direction whose axes are not at right angles, so that nothing has to be shifted.

    Args:
        folder: of one series, and no other image with a position.

    Returns:
        The series, HU, on its sheared grid.
    """
    slices = [dataset for file in folder.iterdir() if "ImagePositionPatient" in (dataset := pydicom.dcmread(file))]
    slices.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    first, last = slices[0], slices[-1]
    row, column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    step = np.subtract(last.ImagePositionPatient, first.ImagePositionPatient).astype(float) / (len(slices) - 1)
    raw = np.stack([one.pixel_array for one in slices])
    hu = (raw * float(first.RescaleSlope) + float(first.RescaleIntercept)).clip(*SEEN_HU).astype(np.float32)
    image = sitk.GetImageFromArray(hu)
    image.SetOrigin(np.array(first.ImagePositionPatient, float).tolist())
    rows_mm, columns_mm = map(float, first.PixelSpacing)
    image.SetSpacing((columns_mm, rows_mm, float(np.linalg.norm(step))))
    image.SetDirection(np.column_stack([row, column, step / np.linalg.norm(step)]).ravel().tolist())
    return Seen(image, sitk.BinaryErode(sitk.Cast(image >= SEEN_HU[0], sitk.sitkUInt8), EDGE))


def seen_by_both(fixed: Seen, moving: Seen) -> sitk.Image:
    """Mask on the grid of the first scan, 0 where either sees nothing."""
    other = sitk.Resample(moving.measured, fixed.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return sitk.And(fixed.measured, other)


def _registration(shrink: int) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-4, 300)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink])
    method.SetSmoothingSigmasPerLevel([1])
    return method


def _blocks(fixed: sitk.Image, both: sitk.Image) -> Iterator[sitk.Image]:
    """Blocks of a scan that both see whole and that have edges along every axis.

    Args:
        fixed: the scan.
        both: mask on the same grid, 0 where either scan sees nothing.

    Yields:
        Images of one size.

    Source: structure tensor, Foerstner and Guelch 1987, A fast operator for detection and precise location of distinct
        points.
    """
    side, every = (np.maximum(np.rint(mm / np.array(fixed.GetSpacing())), 1).astype(int) for mm in (BLOCK_MM, EVERY_MM))
    for start in product(*(range(0, n - s, e) for n, s, e in zip(fixed.GetSize(), side, every, strict=True))):
        window = tuple(slice(a, a + int(s)) for a, s in zip(start, side, strict=True))
        block = fixed[window]
        if not sitk.GetArrayFromImage(both[window]).all():
            continue
        slopes = np.reshape(np.gradient(sitk.GetArrayFromImage(block), *block.GetSpacing()[::-1]), (3, -1))
        if np.linalg.eigvalsh(slopes @ slopes.T / slopes.shape[1])[0] > STRUCTURE:
            yield block


def _found(block: sitk.Image, moving: sitk.Image) -> tuple[Array, Array]:
    """The middle of a block, and where it is found in the other scan; both LPS, mm."""
    corners = np.array(
        [block.TransformIndexToPhysicalPoint(at) for at in ((0, 0, 0), tuple(n - 1 for n in block.GetSize()))]
    )
    ends = np.stack([corners.min(axis=0) - 2 * REACH_MM, corners.max(axis=0) + 2 * REACH_MM])
    at = np.array([moving.TransformPhysicalPointToContinuousIndex(point) for point in product(*ends.T.tolist())])
    low = np.floor(at.min(axis=0)).clip(0).astype(int)
    high = np.minimum(np.ceil(at.max(axis=0)).astype(int) + 1, moving.GetSize())
    shift = sitk.TranslationTransform(3)
    method = _registration(1)
    method.SetInitialTransform(shift, inPlace=True)
    method.Execute(block, moving[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))])
    middle = corners.mean(axis=0)
    return middle, middle + shift.GetOffset()


def found_blocks(fixed: Seen, moving: Seen) -> tuple[Array, Array]:
    """Where blocks of one scan lie, and where they are found in another; those that are not found are left out.

    Args:
        fixed: the scan that blocks are cut from.
        moving: the other one.

    Returns:
        (n, 3) LPS, mm, of each.
    """
    pairs = [_found(block, moving.image) for block in _blocks(fixed.image, seen_by_both(fixed, moving))]
    places, found = (np.array(points) for points in zip(*pairs, strict=True))
    kept = np.linalg.norm(found - places, axis=1) < REACH_MM
    return places[kept], found[kept]


def _show(what: str, mm: Array) -> None:
    print(f"{what}: mean {mm.mean():.2f}, 95 % within {np.quantile(mm, 0.95):.2f} mm")


def _judge(places: Array, found: Array) -> None:
    """How far blocks are from their places (n, 3), before and after a rigid motion that all share is taken out."""
    moved, off = found - places, places - places.mean(axis=0)
    turn, _ = Rotation.align_vectors(found - found.mean(axis=0), off)
    left = found - found.mean(axis=0) - turn.apply(off)
    slopes = np.linalg.lstsq(off, moved - moved.mean(axis=0))[0].T
    print(f"{len(places)} blocks of {BLOCK_MM:g} mm, LPS")
    _show("  as the headers place them", np.linalg.norm(moved, axis=1))
    print("  motion that all share: mm", moved.mean(axis=0).round(2), "degrees", turn.as_rotvec(degrees=True).round(2))
    _show("  without it", np.linalg.norm(left, axis=1))
    print("  mm of motion along x, y, z (rows) a metre along x, y, z:", (1000 * slopes).round(1).tolist())
    apart, before = pdist(found), pdist(places)
    far = before > FAR_MM
    ratio, longer = (apart[far] / before[far]).mean(), np.abs((apart - before)[far]).mean()
    print(f"  distances over {FAR_MM:g} mm: {100 * ratio:.2f} % of what they are, {longer:.2f} mm off on average")


@click.command
@click.argument("restored", type=click.Path(path_type=Path))
@click.argument("straight", type=click.Path(path_type=Path))
@click.option(
    "--sheared",
    "is_sheared",
    is_flag=True,
    help="RESTORED is a tilted DICOM series, to be taken as its headers place it.",
)
def main(restored: Path, straight: Path, *, is_sheared: bool) -> None:
    """Print the rigid transform from STRAIGHT to RESTORED, how far it moves landmarks, and where blocks are found."""
    moving, fixed = (sheared if is_sheared else scan_of)(restored), scan_of(straight)
    both = seen_by_both(fixed, moving)
    zyx = np.argwhere(sitk.GetArrayViewFromImage(both)).mean(axis=0)
    centre = np.array(fixed.image.TransformContinuousIndexToPhysicalPoint(zyx[::-1].tolist()))
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(centre.tolist())
    method = _registration(2)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.02, 1)
    method.SetMetricFixedMask(both)
    method.SetMetricMovingMask(moving.measured)
    method.SetInitialTransform(rigid, inPlace=True)
    method.Execute(fixed.image, moving.image)
    landmarks = centre + LANDMARKS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    moved_mm = [float(np.linalg.norm(np.array(rigid.TransformPoint(p.tolist())) - p)) for p in landmarks]
    print("shift at the centre, LPS mm:", np.round(rigid.GetTranslation(), 2).tolist())
    print("turn about x, y, z, degrees:", np.degrees(rigid.GetParameters()[:3]).round(2).tolist())
    print(f"landmarks {LANDMARKS_MM:g} mm off the centre: mean {np.mean(moved_mm):.2f}, at most {max(moved_mm):.2f} mm")
    _judge(*found_blocks(fixed, moving))


if __name__ == "__main__":
    main()
