"""What passes for an axial CT in HU."""

import numpy as np
import pytest

from ctinterp_dagster.errors import (
    ClippedError,
    ConstantError,
    DerivedError,
    GeometryError,
    IntensityError,
    NotFiniteError,
    TooFewSlicesError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.phantom import phantom

from .conftest import plain_volume

CHEST = phantom("check", (12, 64, 64), (2.0, 6.0, 6.0), 10.0).hu


def test_a_chest_passes() -> None:
    check_volume(plain_volume(CHEST), min_slices=12)


@pytest.mark.parametrize(
    "change",
    [lambda hu: hu.clip(-960), lambda hu: np.where(hu < -990, -3024, hu), lambda hu: np.where(hu > 500, 20000, hu)],
    ids=["air at -960", "padding at -3024", "extended scale"],
)
def test_what_scanners_do_to_hu_passes(change: object) -> None:
    check_volume(plain_volume(change(CHEST)), min_slices=2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda hu: np.where(hu > 400, np.nan, hu), NotFiniteError, "NaN or infinite"),
        (lambda hu: np.where(hu > 400, np.inf, hu), NotFiniteError, "NaN or infinite"),
        (lambda hu: np.full_like(hu, -1000), ConstantError, "every voxel is -1000"),
        (lambda hu: (hu + 1024) / 4096, WrongUnitsError, "air"),
        (lambda hu: (hu + 1024) / 16, WrongUnitsError, "air"),
        (lambda hu: (hu + 1024) / 2048 - 1, WrongUnitsError, "air"),
        (lambda hu: hu + 1024, WrongUnitsError, "air"),
        (lambda hu: np.where(hu < -990, -2000, hu + 1024), WrongUnitsError, "air"),
        (lambda hu: (hu.clip(-160, 240) + 160) / 200 - 1, WrongUnitsError, "air"),
        (lambda hu: (hu + 1024) / 16 - 1024, WrongUnitsError, "tissue"),
        (lambda hu: np.where(hu < -990, -32768, hu), WrongUnitsError, "values run from -32768"),
        (lambda hu: np.where(hu > 400, 65535, hu), WrongUnitsError, "to 65535"),
        (lambda hu: hu.clip(-160, 240), ClippedError, "of the voxels are -160, and none lies beyond"),
        (lambda hu: hu.clip(-1350, 50), ClippedError, "of the voxels are 50, and none lies beyond"),
        (lambda hu: hu.clip(-850), ClippedError, "of the voxels are -850, and none lies beyond"),
    ],
    ids=[
        "NaN", "infinite", "constant", "0..1", "0..255", "-1..1", "no intercept", "no intercept, padded",
        "windowed to -1..1", "8 bits", "16-bit padding", "unsigned overflow", "soft-tissue window", "lung window",
        "air cut off",
    ],
)  # fmt: skip
def test_what_is_not_hu_is_refused(change: object, error: type[IntensityError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_volume(plain_volume(change(CHEST)), min_slices=2)


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(TooFewSlicesError, match="has 12 slices: expected at least 13"):
        check_volume(plain_volume(CHEST), min_slices=13)


@pytest.mark.parametrize("order", [(2, 1, 0), (0, 2, 1)], ids=["sagittal", "coronal"])
def test_other_planes_are_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(DerivedError, match="a sagittal or coronal"):
        check_volume(plain_volume(CHEST, direction=np.eye(3)[:, order]), min_slices=2)


@pytest.mark.parametrize(
    ("spacing_mm", "message"),
    [
        ((0.001, 0.8, 0.8), "slice spacing is 0.001"),
        ((25, 0.8, 0.8), "slice spacing is 25"),
        ((1, 12, 0.8), "row"),
        ((1, 1, 12), "column"),
    ],
)
def test_spacing_that_no_scanner_has_is_refused(spacing_mm: tuple[float, float, float], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        check_volume(plain_volume(CHEST, spacing_mm=spacing_mm), min_slices=2)
