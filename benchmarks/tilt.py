"""How far a scan lies from another one of the same object: a tilted series, restored, against a straight scan of it.

    ctinterp interpolate TILTED/ -o restored.nii.gz --method cubic_projected
    python -m benchmarks.tilt restored.nii.gz STRAIGHT

Both have to lie in one frame of reference. What is found is the error of the place in the headers, of ours, and of the
object, which may have moved.
"""

from pathlib import Path

import click
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name

from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.io.images import itk_image
from ctinterp_dagster.scan.padding import without_padding

SEEN_HU = (-1000.0, 1500.0)
EDGE = (4, 4, 1)  # voxels (x, y, z) inside of the padding that are not compared
LANDMARKS_MM = 50.0  # from the centre of what both see, along each axis and both ways


def _image(path: Path) -> tuple[sitk.Image, sitk.Image]:
    """A scan within `SEEN_HU`, and where it was measured."""
    volume = read_scan(path).volume
    filled, padding = without_padding(volume)
    measured = np.ones(volume.hu.shape, np.uint8) if padding is None else (~padding.mask).astype(np.uint8)
    mask = sitk.BinaryErode(itk_image(volume, measured), EDGE)
    return itk_image(volume, filled.hu.clip(*SEEN_HU)), mask


def _registration() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.02, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-4, 300)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([1])
    return method


@click.command
@click.argument("restored", type=click.Path(path_type=Path))
@click.argument("straight", type=click.Path(path_type=Path))
def main(restored: Path, straight: Path) -> None:
    """Print the rigid transform from STRAIGHT to RESTORED, and how far it moves landmarks."""
    (moving, moving_mask), (fixed, fixed_mask) = _image(restored), _image(straight)
    both = sitk.And(fixed_mask, sitk.Resample(moving_mask, fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    zyx = np.argwhere(sitk.GetArrayViewFromImage(both)).mean(axis=0)
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint(zyx[::-1].tolist()))
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(centre.tolist())
    method = _registration()
    method.SetMetricFixedMask(both)
    method.SetMetricMovingMask(moving_mask)
    method.SetInitialTransform(rigid, inPlace=True)
    method.Execute(fixed, moving)
    landmarks = centre + LANDMARKS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    moved_mm = [float(np.linalg.norm(np.array(rigid.TransformPoint(p.tolist())) - p)) for p in landmarks]
    print("shift at the centre, LPS mm:", np.round(rigid.GetTranslation(), 2).tolist())
    print("turn about x, y, z, degrees:", np.degrees(rigid.GetParameters()[:3]).round(2).tolist())
    print(f"landmarks {LANDMARKS_MM:g} mm off the centre: mean {np.mean(moved_mm):.2f}, at most {max(moved_mm):.2f} mm")


if __name__ == "__main__":
    main()
