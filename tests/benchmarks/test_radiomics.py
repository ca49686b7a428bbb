from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import radiomics
from benchmarks.radiomics import concordance, places, share_good


def test_concordance_is_that_of_lin() -> None:
    one = np.array([[1.0], [2.0], [3.0], [4.0]])
    assert concordance(one, one) == pytest.approx([1])
    assert concordance(one, one + 1) == pytest.approx([2 * 1.25 / (1.25 + 1.25 + 1)])
    assert concordance(one, one[::-1]) == pytest.approx([-1])
    assert np.isnan(concordance(np.ones((4, 1)), np.ones((4, 1))))[0]


def test_the_share_counts_good_features_and_its_interval_holds_it() -> None:
    truth = np.random.default_rng(0).normal(0, 1, (30, 40))
    noise = np.random.default_rng(1).normal(0, 1, truth.shape)
    noise[:, :20] *= 0.01
    share, low, high = share_good(truth + noise, truth)
    assert share == 0.5
    assert low <= share <= high


def test_places_lie_in_lung_and_apart() -> None:
    hu = np.full((60, 60, 90), 50, np.float32)
    hu[..., 30:] = -850
    cubes = places(hu, 6)
    assert len(cubes) == 6
    assert all((hu[cube] == -850).mean() > 0.9 for cube in cubes)
    starts = np.array([[part.start for part in cube] for cube in cubes])
    assert all(np.abs(np.delete(starts, k, 0) - start).max(axis=1).min() >= 17 for k, start in enumerate(starts))


def test_what_is_not_installed_is_said_before_anything_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(radiomics, "find_spec", lambda _: None)
    done = CliRunner().invoke(radiomics.main, [str(tmp_path / "records.json"), "absent.nii"])
    assert done.output == "Error: MIRP is not installed: pip install '.[radiomics]'\n"
