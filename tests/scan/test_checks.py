"""What passes for an axial CT in HU."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctinterp_dagster.errors import (
    ClippedError,
    ConstantError,
    DerivedError,
    GeometryError,
    IntensityError,
    NotFiniteError,
    ScanError,
    TooFewSlicesError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.checks import check_volume
from tests.phantoms import phantom

from .conftest import plain_volume

Change = Callable[[np.ndarray], np.ndarray]
CHEST = phantom("check", (12, 64, 64), (2.0, 6.0, 6.0), 10.0).hu
RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 12, CHEST.shape)
BLOBS = gaussian_filter(RNG.normal(size=CHEST.shape), 4)
BLOBS = (BLOBS - BLOBS.min()) / np.ptp(BLOBS)
BODY = np.where(BLOBS > 0.6, -100, np.where(BLOBS < 0.1, 400, 50)) + NOISE


def test_a_chest_passes() -> None:
    check_volume(plain_volume(CHEST), min_slices=12)


CHANGES = {
    "air at -960": lambda hu: hu.clip(-960),
    "padding of -3024": lambda hu: np.where(hu < -990, -3024, hu),
    "16-bit padding": lambda hu: np.where(hu < -990, -32768, hu),
    "extended scale": lambda hu: np.where(hu > 500, 20000, hu),
    "no gas: water with noise": lambda hu: RNG.normal(0, 5, hu.shape).round(),
    "no gas: fat, muscle and bone": lambda _: np.where(BLOBS > 0.6, -100, np.where(BLOBS < 0.05, 900, 50)) + NOISE,
    "no gas: a brain in its skull": lambda _: np.where(BLOBS < 0.2, 700, 35) + NOISE,
    "no gas: bone alone": lambda _: 350 + 1200 * (BLOBS - 0.4) + NOISE,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hu_pass_whatever_scanners_do_to_them_and_whatever_is_in_view(change: Change) -> None:
    assert check_volume(plain_volume(change(CHEST)), min_slices=2) == ()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda hu: np.where(hu > 400, np.nan, hu), NotFiniteError, "NaN or infinite"),
        (lambda hu: np.where(hu > 400, np.inf, hu), NotFiniteError, "NaN or infinite"),
        (lambda hu: np.full_like(hu, -1000), ConstantError, "every voxel is -1000"),
        (lambda hu: np.full_like(hu, -2000), ConstantError, "every voxel is -2000"),
        (lambda hu: (hu + 1024) / 4096, WrongUnitsError, "looks like 0 to 1"),
        (lambda hu: (hu - hu.mean()) / hu.std(), WrongUnitsError, "a normalised image"),
        (lambda hu: (hu + 1024) / 8, WrongUnitsError, "grey values of 0 to 255"),
        (lambda hu: ((hu.clip(-160, 240) + 160) / 400 * 255).round(), WrongUnitsError, "grey values of 0 to 255"),
        (lambda hu: hu + 1024, WrongUnitsError, r"HU \+ 1024: every voxel is 0 or more and organs lie near 998"),
        (lambda hu: np.where(hu < -990, -2000, hu + 1024), WrongUnitsError, r"looks like HU \+ 1024"),
        (lambda _: BODY + 1024, WrongUnitsError, r"looks like HU \+ 1024"),
        (lambda _: BODY / 8 + 125, WrongUnitsError, "grey values of 0 to 255"),
        (lambda hu: hu * 10, WrongUnitsError, "HU times 10"),
        (lambda hu: hu - 1024, WrongUnitsError, "HU - 1024"),
        (lambda hu: -hu, WrongUnitsError, "inverted"),
        (lambda hu: hu / 10, WrongUnitsError, "HU scaled down"),
        (lambda hu: (hu + 1024) / 16 - 1024, WrongUnitsError, "no tissue"),
        (lambda hu: np.where(hu < -500, 0, hu), WrongUnitsError, "a masked image"),
        (lambda hu: np.where(hu > 400, 65535, hu), WrongUnitsError, "to 65535"),
        (lambda hu: hu.clip(-160, 240), ClippedError, "of the voxels are -160, and none lies beyond"),
        (lambda hu: hu.clip(-1350, 50), ClippedError, "of the voxels are 50, and none lies beyond"),
        (lambda hu: hu.clip(-850), ClippedError, "of the voxels are -850, and none lies beyond"),
    ],
    ids=[
        "NaN", "infinite", "constant", "padding alone", "0..1", "z-score", "0..255", "window to 0..255", "no intercept",
        "no intercept, padded", "no intercept, no gas", "0..255, no gas", "times 10", "intercept twice", "inverted",
        "over 10", "8 bits", "masked", "unsigned overflow", "soft-tissue window", "lung window", "air cut off",
    ],
)  # fmt: skip
def test_what_is_not_hu_is_refused_with_what_it_looks_like(
    change: Change, error: type[IntensityError], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_volume(plain_volume(change(CHEST)), min_slices=2)


def test_force_turns_refusals_into_warnings_with_the_same_words() -> None:
    coronal = plain_volume(CHEST + 1024, direction=np.eye(3)[:, [0, 2, 1]])
    warnings = check_volume(coronal, min_slices=2, force=True, name="a.nii")
    with pytest.raises(DerivedError) as refused:
        check_volume(coronal, min_slices=2, name="a.nii")
    assert warnings[0] == str(refused.value)
    assert [w.split(" ")[0] for w in warnings] == ["a.nii:", "a.nii:"]
    assert "HU + 1024" in warnings[1]


@pytest.mark.parametrize(
    ("hu", "error", "said"),
    [(CHEST[:2], TooFewSlicesError, "2 slices"), (np.zeros_like(CHEST), ConstantError, "every voxel is 0"),
     (np.where(CHEST > 400, np.nan, CHEST), NotFiniteError, "NaN")],
)  # fmt: skip
def test_no_force_takes_what_cannot_be_computed(hu: np.ndarray, error: type[ScanError], said: str) -> None:
    with pytest.raises(error, match=said):
        check_volume(plain_volume(hu), min_slices=3, force=True)


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
