"""The released model on grids where the thin slices do not divide the thick ones, as `interpolate --spacing` gives."""

import pytest

from ctinterp_dagster.interpolation import Interpolator, load_checkpoint, simulated
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom


@pytest.fixture(scope="module")
def model() -> Interpolator:
    return load_checkpoint(device="cpu")


@pytest.fixture(scope="module")
def thin() -> Volume:
    """Slices of half a millimetre, so that the truth of 1 mm is means of two."""
    return phantom(3, shape_zyx=(72, 64, 64), spacing_mm=(0.5, 2.0, 2.0), noise_hu=20.0)


@pytest.mark.parametrize("factor", [2.5, 3, 3.5])
def test_the_released_model_is_better_than_projected_cubic(factor: float, model: Interpolator, thin: Volume) -> None:
    measurement = simulated(thin, factor, "box", spacing_mm=1.0)
    methods = {"cubic": METHODS["cubic_projected"], "model": model.restore}
    cubic, ours = (it.scores for it in score_methods(measurement, methods))
    assert ours.psnr_db > cubic.psnr_db
    assert ours.mae_hu < cubic.mae_hu
    mirrored = ours.mae_by_position_hu[::-1]
    assert ours.mae_by_position_hu == pytest.approx(mirrored, rel=0.05), "no stripes: the error is symmetric"


def test_the_released_latent_diffusion_is_named_and_better_than_what_it_starts_from(thin: Volume) -> None:
    named = load_checkpoint("latent", device="cpu")
    methods = {"base": METHODS["cubic_projected"], "latent": named.restore}
    base, ours = (it.scores for it in score_methods(simulated(thin, 5, "box", spacing_mm=1.0), methods))
    assert ours.psnr_db > base.psnr_db
    assert named.model.kind == "latent_diffusion"
