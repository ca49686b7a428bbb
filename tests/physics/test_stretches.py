"""Slices that are evenly spaced only in stretches, on one thin grid that gives every one of them back."""

from dataclasses import replace

import numpy as np
import pytest

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import Estimate
from ctinterp_dagster.physics.stretches import Stretches, measure_stretches
from ctinterp_dagster.scan.padding import OUTSIDE_HU
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

THIN_MM = 1.25
THIN = phantom(3, shape_zyx=(80, 32, 36), spacing_mm=(THIN_MM, 10.0, 9.0), noise_hu=10.0)


def stretch(first: int, factor: int, count: int) -> Volume:
    """Slices that are each the mean of `factor` thin ones, from thin slice `first` on."""
    hu = THIN.hu[first : first + factor * count].reshape(count, factor, *THIN.hu.shape[1:]).mean(axis=1)
    return THIN.with_slices(hu, first + (factor - 1) / 2, factor * THIN_MM)


def joined(*volumes: Volume, thickness_mm: float | None = None) -> tuple[Stretches, Estimate]:
    acquisitions = [Acquisition("box", thickness_mm, Tags(volume.spacing_mm[0])) for volume in volumes]
    stretches = measure_stretches(volumes, THIN_MM, acquisitions, force=True)
    return stretches, stretches.join([METHODS["cubic_projected"](part) for part in stretches.parts])


def test_slices_of_two_distances_are_given_back_each_where_it_was() -> None:
    fine, coarse = stretch(0, 2, 12), stretch(24, 4, 14)
    stretches, estimate = joined(fine, coarse)
    assert not any("nothing was measured" in said for said in stretches.warnings)
    assert estimate.mean.hu.shape == THIN.hu.shape
    np.testing.assert_allclose(estimate.mean.origin_mm, THIN.origin_mm, atol=1e-6)
    hu = estimate.mean.hu
    np.testing.assert_allclose(hu[:24].reshape(12, 2, 32, 36).mean(axis=1), fine.hu, atol=0.01)
    np.testing.assert_allclose(hu[24:].reshape(14, 4, 32, 36).mean(axis=1), coarse.hu, atol=0.01)
    assert estimate.residual_hu < 1e-3
    assert estimate.std is None


def test_a_missing_slice_is_interpolated_and_told_and_the_others_are_given_back() -> None:
    below, above = stretch(0, 4, 8), stretch(36, 4, 10)
    stretches, estimate = joined(below, above)
    assert stretches.warnings[-1] == "nothing was measured for 5.0 mm: the thin slices there are interpolated"
    hu = estimate.mean.hu
    assert len(hu) == 76
    np.testing.assert_allclose(hu[:32].reshape(8, 4, 32, 36).mean(axis=1), below.hu, atol=0.01)
    np.testing.assert_allclose(hu[36:].reshape(10, 4, 32, 36).mean(axis=1), above.hu, atol=0.01)
    assert np.abs(hu[32:36] - THIN.hu[32:36]).mean() < np.abs(below.hu[-1] - THIN.hu[32:36]).mean()


def test_a_gap_of_over_a_centimetre_is_left_out_and_told() -> None:
    stretches, estimate = joined(stretch(0, 4, 6), stretch(36, 4, 10))
    said = "nothing was measured for 15.0 mm, more than 10 mm: the thin slices there are left out (-2000 HU)"
    assert stretches.warnings[-1] == said
    left_out = (estimate.mean.hu == OUTSIDE_HU).all(axis=(1, 2))
    assert np.flatnonzero(left_out).tolist() == list(range(24, 36))
    assert estimate.residual_hu < 1e-3


def test_stretches_that_overlap_are_given_back_both() -> None:
    stretches, estimate = joined(stretch(0, 2, 14), stretch(25, 4, 12))
    assert len(estimate.mean.hu) == 73
    assert estimate.residual_hu < 0.01
    assert not stretches.operator.is_regularised


def test_padding_of_stretches_comes_back_as_it_is() -> None:
    volumes = [stretch(0, 2, 12), stretch(24, 4, 14)]
    for volume in volumes:
        volume.hu[:, :3] = -3024
    _, estimate = joined(*volumes)
    assert (estimate.mean.hu[:, :3] == -3024).all()
    assert estimate.mean.hu[:, 3:].min() > -1500


def test_one_stretch_is_restored_as_ever() -> None:
    stretches, estimate = joined(stretch(0, 4, 20))
    alone = METHODS["cubic_projected"](stretches.parts[0])
    np.testing.assert_array_equal(estimate.mean.hu, alone.mean.hu)


def test_a_thin_grid_that_is_coarser_than_a_stretch_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"less than in the finest stretch of the scan, 1\.25 mm; change --spacing"):
        joined(stretch(0, 1, 12), stretch(24, 4, 12))


def test_stretches_beside_each_other_are_refused() -> None:
    moved = stretch(24, 4, 12)
    moved = Volume(moved.hu, moved.spacing_mm, (moved.origin_mm[0] + 4, *moved.origin_mm[1:]), moved.direction)
    with pytest.raises(GeometryError, match=r"no common grid of pixels.*--series"):
        joined(stretch(0, 2, 12), moved)


@pytest.mark.parametrize("thin_mm", [1.0, 2.0, 3.0])
def test_thin_slices_far_apart_in_two_stretches_are_given_back(thin_mm: float) -> None:
    hu = THIN.hu[:12]
    near = THIN.with_slices(hu[:6], 0.0, 12.0)
    far = Volume(hu[6:], (15.0, *THIN.spacing_mm[1:]), tuple(near.point_mm((6.0, 0, 0)).tolist()), THIN.direction)
    stretches = measure_stretches([near, far], thin_mm, [Acquisition("box", tags=Tags(1.0))] * 2, force=True)
    estimate = stretches.join([METHODS["cubic_projected"](part) for part in stretches.parts])
    assert estimate.residual_hu < 0.01
    assert estimate.mean.hu[stretches.kept].min() > OUTSIDE_HU


def test_the_deviation_between_stretches_is_that_of_a_mixture() -> None:
    """Of the slices on both sides of the gap; in a gap that is too wide it is that of all that was measured."""
    narrow = joined(stretch(0, 4, 8), stretch(36, 4, 10))[0]
    wide = joined(stretch(0, 4, 6), stretch(36, 4, 10))[0]
    for stretches, gap in ((narrow, slice(32, 36)), (wide, slice(24, 36))):
        estimates = [METHODS["cubic_projected"](part) for part in stretches.parts]
        known = [replace(own, std=own.mean.with_hu(np.full_like(own.mean.hu, 7.0))) for own in estimates]
        std = stretches.join(known).std
        assert std is not None
        outside = np.r_[0 : gap.start, gap.stop : len(std.hu)]
        np.testing.assert_allclose(std.hu[outside], 7.0, rtol=1e-4)
        if stretches is wide:
            np.testing.assert_allclose(std.hu[gap], np.concatenate([p.thick.hu for p in wide.parts]).std(), rtol=1e-4)
            continue
        low, high = (own.mean.hu[k].astype(np.float64) for own, k in zip(estimates, (-1, 0), strict=True))
        weight = np.arange(1, 5)[:, None, None] / 5
        expected = np.sqrt(49 + weight * (1 - weight) * (high - low) ** 2)
        np.testing.assert_allclose(std.hu[gap], expected, rtol=1e-3)


def test_stretches_of_one_scan_have_one_profile() -> None:
    """The short one cannot tell by its own noise, the long one can."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 20, (480, 64, 64)).astype(np.float32)
    noisy = Volume(noise, (THIN_MM, 1.0, 1.0), (0.0, 0.0, 0.0), np.eye(3))
    ends = (0, 16), (40, 480)
    box = [noisy.with_slices(noise[a:b].reshape(-1, 4, 64, 64).mean(axis=1), a + 1.5, 5.0) for a, b in ends]
    short, long = measure_stretches(box, 1.25, [Acquisition(tags=Tags(5.0))] * 2, force=True).parts
    assert short.slice_profile
    assert short.slice_profile.confidence == "measured"
    assert short.operator.profile == long.operator.profile == "box"
    assert short.slice_profile.reason.startswith("of other slices of this scan")
