"""A thin scan as the truth on a grid of its own or a coarser one."""

import numpy as np
import pytest
import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import simulated
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

FINE = phantom(3, (80, 24, 24), (0.5, 10.0, 10.0), 10.0)


def test_on_a_coarser_grid_the_truth_is_means_and_the_thick_slices_are_those_of_the_scan_itself() -> None:
    scans = simulated(FINE, 2.5, "box", spacing_mm=1.0)
    np.testing.assert_allclose(scans.known.hu, FINE.hu.reshape(40, 2, 24, 24).mean(1), atol=1e-3)
    np.testing.assert_allclose(scans.thick.hu, FINE.hu.reshape(16, 5, 24, 24).mean(1), atol=1e-3)
    assert (scans.known.spacing_mm[0], scans.thick.spacing_mm[0], scans.factor) == (1.0, 2.5, 2.5)
    for volume in (scans.known, scans.thick):
        np.testing.assert_allclose(volume.point_mm((-0.5, 0, 0)), FINE.point_mm((-0.5, 0, 0)), atol=1e-9)
    missed = scans.operator.forward(torch.from_numpy(scans.known.hu)).numpy() - scans.thick.hu
    assert np.abs(missed).mean() > 1, "a slice of 1 mm in two thick ones is not evenly filled"


def test_on_its_own_grid_the_truth_is_the_scan() -> None:
    scans = simulated(FINE, 3.5, "gaussian")
    np.testing.assert_array_equal(scans.known.hu, FINE.hu[:77])
    assert scans.thick.depth == 22
    torch.testing.assert_close(
        scans.operator.forward(torch.from_numpy(scans.known.hu)), torch.from_numpy(scans.thick.hu)
    )


def test_slices_that_fill_a_coarser_one_in_part_weigh_by_the_part() -> None:
    scans = simulated(FINE, 2, "box", spacing_mm=0.75)
    np.testing.assert_allclose(scans.known.hu[0], (FINE.hu[0] + FINE.hu[1] / 2) / 1.5, atol=1e-3)
    np.testing.assert_allclose(scans.known.hu[1], (FINE.hu[1] / 2 + FINE.hu[2]) / 1.5, atol=1e-3)


def test_spacings_that_a_file_rounded_are_whole_multiples() -> None:
    rounded = Volume(FINE.hu, (float(np.float32(0.4)), 10.0, 10.0), FINE.origin_mm, FINE.direction)
    scans = simulated(rounded, 2.5, "box", spacing_mm=0.8)
    np.testing.assert_allclose(scans.known.hu, FINE.hu.reshape(40, 2, 24, 24).mean(1), atol=1e-3)
    assert simulated(rounded, 5, "box", spacing_mm=0.4).known.hu.shape == FINE.hu.shape


def test_means_of_slices_that_overlap_overlap_less() -> None:
    assert simulated(FINE, 2.5, "box", None, 0.75).operator.thin_thickness == pytest.approx(1.5)
    coarser = simulated(FINE, 2.5, "box", 1.0, 0.75).operator.thin_thickness
    assert coarser == pytest.approx(np.sqrt(0.75**2 + 1.0 - 0.25))
    assert simulated(FINE, 2.5, "box", 1.0, 0.5).operator.thin_thickness == pytest.approx(1.0)


def test_every_classical_method_that_is_projected_explains_the_thick_slices_on_any_grid() -> None:
    methods = {name: METHODS[name] for name in ("cubic_projected", "tv_projected", "registration_projected")}
    for scored in score_methods(simulated(FINE, 3.13, "box", 1.0), methods):
        assert scored.scores.residual_hu < 0.5
        assert scored.scores.psnr_db > 20
        assert len(scored.scores.mae_by_position_hu) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ((2.5, "box", 0.4), ParamsError, "a slice every 0.5 mm, and none every 0.4 mm is known: give 0.5 mm or more"),
        ((1.0, "box"), ParamsError, "the factor between thin and thick slices is 1, expected more than 1"),
        ((5.0, "box", 50.0), ParamsError, "80 slices of 0.5 mm do not fill one thick slice, 100 times as thick"),
        ((2.5, "box", 1.0, 2.5), ParamsError, "thinner than the thick ones of 2.5 mm, got 2.5 mm"),
        ((2.5, "box", 1.0, 0.4), ParamsError, "at least as thick as their distance, 0.5 mm"),
    ],
)
def test_grids_that_cannot_be_are_refused(options: tuple, error: type[Exception], message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message):
        simulated(FINE, *options)
