"""SimpleITK, imported where one of its formats is met: a training and an inference need none of its 260 MB."""

import sys
from typing import Any


def simple_itk() -> Any:
    """The library, which has no types."""
    import SimpleITK  # noqa: PLC0415 (see above)

    return SimpleITK


def is_itk(image: Any) -> bool:
    """Whether an image is SimpleITK's; there is none before the library is imported."""
    return sys.modules.get("SimpleITK") is not None and isinstance(image, simple_itk().Image)
