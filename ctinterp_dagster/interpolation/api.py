"""The one call of the Python API: a thick scan in, a thin one of the same kind out."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.interpolation.api_wording import words_of_python
from ctinterp_dagster.interpolation.arguments import check_types
from ctinterp_dagster.interpolation.interpolator import RELEASED, Interpolator, Spacing, load_checkpoint
from ctinterp_dagster.interpolation.selfcheck import CheckedEstimate, SelfCheck
from ctinterp_dagster.model.restore_settings import MixedPrecision, Precision, Settings
from ctinterp_dagster.physics.acquisition import Acquisition, Auto, Tags
from ctinterp_dagster.physics.measurement import Measurement, measure
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.io.images import image_of, itk_image, volume_of
from ctinterp_dagster.scan.volume import Volume

NAME = "the thick scan"


def interpolate(
    thick: Any,
    *,
    spacing_mm: Spacing | None = None,
    target_mm: float = 1.0,
    thickness_mm: float | None = None,
    profile: Profile | Auto = "auto",
    return_std: bool = False,
    samples: int = 8,
    seed: int = 0,
    series: str | None = None,
    model: Path | str = RELEASED,
    device: str = "auto",
    memory_gib: float = 3.0,
    mixed_precision: Precision = "auto",
    force: bool = False,
) -> Any:
    """The posterior mean of the thin scan behind a thick one, and its standard deviation if that is asked for.

    It covers the extent of the thick scan in the same place in space, and gives the measured slices when it is
    thickened again. `interpolation.Interpolator.restore` gives the samples themselves.

    Args:
        thick: in HU: an array or tensor (z, y, x); an image of SimpleITK or nibabel, whose slice axis is the one much
            coarser than both others, else head-feet; or the path of a file, or of a folder or zip of DICOM.
        spacing_mm: of an array or tensor, (z, y, x); images and files know theirs.
        target_mm: distance of the thin slices.
        thickness_mm: full width at half maximum of the thick slices' profile; None for the tags', else their distance.
        profile: of the thick slices; `auto` has the noise of the scan tell it, and warns where it cannot.
        return_std: True draws samples, and returns the standard deviation in HU as well.
        samples: how many to draw for it, 2 or more.
        seed: of the samples.
        series: which scan of a path that holds several: its name, UID, description, date or number.
        model: a model file.
        device: auto, cpu or cuda.
        memory_gib: bound of the networks' working memory.
        mixed_precision: no is float32; auto is the fastest of int8, bf16 and no that the device has instructions for.
        force: True takes values that do not look like HU, and gives a doubtful result, with warnings.

    Returns:
        What was given: a float32 array or tensor (z', y, x), or a float32 image of the same library, of a path one of
        SimpleITK. With `return_std` two of them: mean and standard deviation.

    Raises:
        ParamsError: no array of real numbers with a spacing, a target no finer than the scan, one sample, other types.
        MissingInputError, ScanError: there is no scan at the path, there are several, or it is no CT in HU in space.
        DoubtfulResultError: the result cannot be what the thick slices saw.
        CheckpointError: the model cannot be read.
    """
    check_types(locals())
    with words_of_python() as say:
        interpolator = load_checkpoint(model, device)
        settings = _settings(samples if return_std else None, seed, memory_gib, interpolator.precision(mixed_precision))
        volume, tags = read(thick, spacing_mm, series)
        measurement = measure(volume, target_mm, Acquisition(profile, thickness_mm, tags), force=force, name=NAME)
        estimate, doubts = restored(measurement, interpolator, settings, force=force)
    for sentence in (*measurement.warnings, *doubts):
        warnings.warn(say(sentence), stacklevel=2)
    mean = like(estimate.mean, thick)
    return (mean, like(estimate.std, thick)) if estimate.std else mean


def _settings(samples: int | None, seed: int, memory_gib: float, precision: MixedPrecision) -> Settings:
    """What the keywords ask for.

    Args:
        samples: two or more; None for the mean alone.
        seed: of the first sample.
        memory_gib: bound of the networks' working memory.
        precision: of the networks, as model and device decide it.

    Returns:
        Settings in that precision.

    Raises:
        ParamsError: one sample, of which there is no standard deviation.
    """
    if samples is not None and samples < 2:
        raise ParamsError(f"a standard deviation needs samples=2 or more, got {samples}")
    return Settings(samples=samples or 0, seed=seed, memory_gib=memory_gib, mixed_precision=precision)


def restored(measurement: Measurement, model: Interpolator, settings: Settings, *, force: bool) -> CheckedEstimate:
    """The estimate, padded as the scan is, and what is doubtful about it.

    Args:
        measurement: of the scan.
        model: loaded.
        settings: of the sampler.
        force: give a doubtful estimate, too.

    Returns:
        The estimate and its doubts.

    Raises:
        DoubtfulResultError: something is, and `force` is false; no sample was drawn then.
    """
    selfcheck = SelfCheck(measurement, force)
    estimate = model.restore(measurement, settings, on_mean=selfcheck.check)
    return CheckedEstimate(measurement.padded(estimate), selfcheck.doubts)


def read(thick: Any, spacing_mm: Spacing | None, series: str | None) -> tuple[Volume, Tags]:
    """The volume of whatever is given, and what tags say of it.

    Args:
        thick: a path, an image, or an array or tensor (z, y, x) HU.
        spacing_mm: distance of voxels along (z, y, x), of arrays and tensors alone.
        series: which scan of a path, where it holds several.

    Returns:
        The volume in HU; tags only of what was read from a path.

    Raises:
        ParamsError: `spacing_mm` or `series` does not fit what is given, or an array is not of real numbers.
    """
    plain = isinstance(thick, np.ndarray | Tensor)
    if plain != (spacing_mm is not None):
        raise ParamsError(
            f"spacing_mm={spacing_mm} with a {type(thick).__name__}: arrays and tensors need the distance of voxels in "
            "mm along (z, y, x), images and files know theirs"
        )
    if series is not None and not isinstance(thick, str | Path):
        raise ParamsError(f"series={series!r} with a {type(thick).__name__}: it chooses a scan of a path")
    if isinstance(thick, str | Path):
        scan = read_scan(thick, series)
        for warning in scan.warnings:
            warnings.warn(warning, stacklevel=3)
        return scan.volume, Tags.of(scan)
    if spacing_mm is None:
        return volume_of(thick), Tags()
    if np.ndim(spacing_mm) != 1:
        raise ParamsError(f"spacing_mm={spacing_mm}: expected three numbers, the distance of voxels along (z, y, x)")
    if isinstance(thick, Tensor):
        own = thick.detach().cpu()
        values = np.asarray(own.float() if own.dtype == torch.bfloat16 else own)  # numpy has no bfloat16
    else:
        values = thick
    if values.dtype.kind not in "iuf" or np.ma.is_masked(values):
        what = "masked values" if np.ma.is_masked(values) else f"values of type {values.dtype}"
        raise ParamsError(f"got an array with {what}: expected real numbers (HU), all of them; fill or convert it")
    hu = np.require(values, np.float32, ["C", "W"])  # torch warns of what it may not write to
    return Volume(hu, spacing_mm, (0.0, 0.0, 0.0), np.eye(3)), Tags()


def like(volume: Volume, thick: Any) -> Any:
    """A volume as the kind of thing that was given."""
    if isinstance(thick, np.ndarray):
        return volume.hu
    if isinstance(thick, Tensor):
        return torch.from_numpy(volume.hu).to(thick.device)
    return itk_image(volume, volume.hu) if isinstance(thick, str | Path) else image_of(volume, thick)
