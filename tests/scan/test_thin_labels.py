import numpy as np
import pytest
import torch

from ctinterp_dagster.errors import GeometryError
from ctinterp_dagster.physics.grids import operator_for, thicken
from ctinterp_dagster.physics.interpolators import nearest
from ctinterp_dagster.scan.thin_labels import thin_labels
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

POSITIONS = operator_for(12, 5.0, 5.0, 1.0, "box").thin_positions


def labelled(hu: np.ndarray) -> np.ndarray:
    return np.where(hu > 300, 7, np.where(hu < -500, 3, 0)).astype(np.int16)


def dice(one: np.ndarray, other: np.ndarray, label: int) -> float:
    return 2 * ((one == label) & (other == label)).sum() / ((one == label).sum() + (other == label).sum())


@pytest.fixture(scope="module")
def thin() -> Volume:
    return phantom(5, (60, 80, 80), (1.0, 4.0, 4.0), 10.0)


def test_labels_follow_the_edges_of_the_estimate(thin: Volume) -> None:
    thick = thicken(thin, 5, "box")
    given, truth = labelled(thick.hu), labelled(thin.hu)
    made = thin_labels(given, thick, thin.hu, POSITIONS)
    plain = nearest(torch.from_numpy(given.astype(np.float32)), POSITIONS).numpy()
    assert made.dtype == np.int16
    assert set(np.unique(made)) <= {0, 3, 7}
    for label in (3, 7):
        assert dice(made, truth, label) > dice(plain, truth, label)
        assert 1 - dice(made, truth, label) < 0.5 * (1 - dice(plain, truth, label))


def test_without_contrast_the_shape_is_interpolated() -> None:
    """A disc that moves by 8 pixels between two slices lies halfway between them."""
    rows, columns = np.mgrid[:64, :64]
    labels = np.stack([((rows - 32) ** 2 + (columns - x) ** 2 < 15**2).astype(np.uint8) for x in (28, 36)])
    flat = Volume(np.zeros((2, 64, 64), np.float32), (5.0, 1.0, 1.0), (0, 0, 0), np.eye(3))
    made = thin_labels(labels, flat, np.zeros((3, 64, 64), np.float32), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(made[0], labels[0])
    np.testing.assert_array_equal(made[2], labels[1])
    _, found = np.nonzero(made[1])
    assert found.mean() == pytest.approx(32, abs=0.2)
    assert made[1].sum() == pytest.approx(labels[0].sum(), rel=0.1)


def test_a_bright_place_far_from_a_label_stays_without_it() -> None:
    thick = Volume(np.full((4, 40, 40), 0.0, np.float32), (5.0, 1.0, 1.0), (0, 0, 0), np.eye(3))
    labels = np.zeros((4, 40, 40), np.uint8)
    labels[:, 5:12, 5:12] = 2
    thick.hu[labels == 2] = 600
    estimate = np.zeros((16, 40, 40), np.float32)
    estimate[:, 5:12, 5:12] = 600
    estimate[:, 25:35, 25:35] = 900
    made = thin_labels(labels, thick, estimate, np.linspace(-0.4, 3.4, 16))
    assert not made[:, 25:35, 25:35].any()
    assert (made[:, 5:12, 5:12] == 2).all()


def test_labels_of_another_shape_are_refused(thin: Volume) -> None:
    with pytest.raises(GeometryError, match="expected those of the scan"):
        thin_labels(np.zeros((3, 80, 80), np.uint8), thicken(thin, 5, "box"), thin.hu, POSITIONS)
