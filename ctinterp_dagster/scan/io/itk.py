"""SimpleITK, imported where one of its formats is met: a training and an inference need none of its 260 MB."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt


def simple_itk() -> Any:
    """The library, which has no types."""
    import SimpleITK  # noqa: PLC0415 (260 MB)

    return SimpleITK


def is_itk(image: Any) -> bool:
    """Whether an image is SimpleITK's; there is none before the library is imported."""
    return sys.modules.get("SimpleITK") is not None and isinstance(image, simple_itk().Image)


def direction_of(image: Any) -> npt.NDArray[np.float64]:
    """(3, 3): its columns are the unit vectors of the first three axes of an image of SimpleITK."""
    return np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
