"""The one call of the Python API: a thick scan in, a thin one of the same kind out."""

import warnings
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.interpolation.interpolator import RELEASED, load_checkpoint
from ctinterp_dagster.interpolation.selfcheck import refuse_doubtful
from ctinterp_dagster.model.settings import Settings
from ctinterp_dagster.physics.measurement import measure
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.physics.recognition import Auto
from ctinterp_dagster.scan.io.images import image_of, volume_of
from ctinterp_dagster.scan.volume import Volume

Scan = TypeVar("Scan")  # an array, or an image of one of two libraries without types


def interpolate(
    thick: Scan,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    target_mm: float = 1.0,
    thickness_mm: float | None = None,
    profile: Profile | Auto = "auto",
    model: Path | str = RELEASED,
    device: str = "auto",
    memory_gib: float = 3.0,
    force: bool = False,
) -> Scan:
    """The posterior mean of the thin scan behind a thick one.

    It covers the extent of the thick scan in the same place in space, and gives the measured slices when it is
    thickened again. For samples and a standard deviation see `interpolation.Interpolator`.

    Args:
        thick: in HU: an array (z, y, x), or an image of SimpleITK or nibabel, whose slice axis is the one much coarser
            than both others, else head-feet.
        spacing_mm: of an array, (z, y, x); images know theirs.
        target_mm: distance of the thin slices.
        thickness_mm: full width at half maximum of the thick slices' profile; their distance where None.
        profile: of the thick slices; `auto` has the noise of the scan tell it, and warns where it cannot.
        model: a model file.
        device: auto, cpu or cuda.
        memory_gib: bound of the networks' working memory.
        force: True takes values that do not look like HU, and gives a doubtful result, with warnings.

    Returns:
        What was given: a float32 array (z', y, x), or a float32 image of the same library.

    Raises:
        ParamsError: an array without a spacing, an image with one, or a target that is not finer than the scan.
        ScanError: the image is not one volume of a CT in HU that lies in space.
        DoubtfulResultError: the result cannot be what the thick slices saw.
        CheckpointError: the model cannot be read.
    """
    if isinstance(thick, np.ndarray) != (spacing_mm is not None):
        raise ParamsError(f"spacing_mm={spacing_mm} with a {type(thick).__name__}: arrays need it, images know theirs")
    if spacing_mm is not None:
        volume = Volume(np.ascontiguousarray(thick, dtype=np.float32), spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    else:
        volume = volume_of(thick)
    measurement = measure(volume, target_mm, profile, thickness_mm=thickness_mm, force=force, name="thick")
    doubts = list(measurement.warnings)

    def look(mean: Tensor) -> None:
        doubts.extend(refuse_doubtful(measurement, mean, force=force))

    estimate = load_checkpoint(model, device)(measurement, Settings(memory_gib=memory_gib), on_mean=look)
    for sentence in doubts:
        warnings.warn(sentence, stacklevel=2)
    thin = measurement.padded(estimate).mean
    return cast("Scan", thin.hu if isinstance(thick, np.ndarray) else image_of(thin, thick))
