"""Volumes from and to the images of SimpleITK and nibabel, in memory."""

from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK

from ctinterp_dagster.errors import NotCtError
from ctinterp_dagster.scan.io.files import RAS_TO_LPS, placed
from ctinterp_dagster.scan.volume import Volume

Image = Any
"""SimpleITK.Image or a nibabel SpatialImage; neither library has types."""


def volume_of(image: Image) -> Volume:
    """The volume of an image in HU; the slice axis is brought to z, no axis is flipped.

    Raises:
        NotCtError: the image is not one volume of three axes with one number a voxel.
        GeometryError: its axes do not place it in space.
    """
    if isinstance(image, SimpleITK.Image):
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise NotCtError(
                f"an image of {image.GetDimension()} axes with {image.GetNumberOfComponentsPerPixel()} numbers a "
                "voxel: expected three axes and one number"
            )
        direction = np.reshape(image.GetDirection(), (3, 3))
        values = SimpleITK.GetArrayFromImage(image).astype(np.float32).transpose(2, 1, 0)
        return placed(values, direction * np.array(image.GetSpacing()), np.array(image.GetOrigin()))
    if len(image.shape) != 3:
        raise NotCtError(f"an image of shape {image.shape}: expected three axes")
    affine = RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)[:3]
    return placed(np.asarray(image.dataobj, dtype=np.float32), affine[:, :3], affine[:, 3])


def image_of(volume: Volume, like: Image) -> Image:
    """A float32 image of the same library as `like`: SimpleITK's, or nibabel's Nifti1Image with sform and qform."""
    if isinstance(like, SimpleITK.Image):
        image = SimpleITK.GetImageFromArray(volume.hu)
        image.SetSpacing(volume.spacing_mm[::-1])
        image.SetOrigin(volume.origin_mm)
        image.SetDirection(volume.direction.ravel().tolist())
        return image
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ volume.direction * np.array(volume.spacing_mm[::-1])
    affine[:3, 3] = RAS_TO_LPS @ np.array(volume.origin_mm)
    image = nib.Nifti1Image(volume.hu.transpose(2, 1, 0), affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image
