import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.planted import Found, judged, observed, sites
from benchmarks.planted_tables import counted_tables, planted_tables
from benchmarks.worst import Case, picture
from ctinterp_dagster.evaluation.planting import Structure, around, paint
from ctinterp_dagster.evaluation.structures import blob_peaks, blob_response, ranking, unmatched
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.volume import Volume

SPACING = (1.0, 0.8, 0.7)


def air(shape: tuple[int, int, int] = (40, 60, 60), hu: float = -850) -> Volume:
    return Volume(np.full(shape, hu, np.float32), SPACING, (0.0, 0.0, 0.0), np.eye(3))


@pytest.mark.parametrize("size", [3, 5, 8])
def test_a_ball_adds_its_contrast_times_its_volume_and_lies_at_its_place(size: float) -> None:
    scan, centre = air(), np.array([19.8, 23.3, 20.2])
    paint(scan, centre, Structure("lung", "ball", size, 100))
    added = scan.hu + 850
    assert added.max() <= 100
    volume = added.sum() / 100 * np.prod(SPACING)
    blurred = np.pi / 6 * size**3 + 2 * np.pi * size * 0.5**2  # of a radius that a Gaussian of 0.5 mm makes uncertain
    assert volume == pytest.approx(blurred, rel=0.03)
    at = [(added.sum(axis=tuple({0, 1, 2} - {k})) * (np.arange(n) + 0.5)).sum() for k, n in enumerate(added.shape)]
    assert np.array(at) / added.sum() * SPACING == pytest.approx(centre, abs=0.02)


def test_a_crack_in_a_slice_is_thin_along_z_and_one_across_slices_is_not() -> None:
    for kind, expected in {"crack in a slice": (1, 8), "crack across slices": (8, 1)}.items():
        scan = air()
        paint(scan, np.array([20.5, 24.0, 21.0]), Structure("bone", kind, 8, -200))
        z, _, x = np.nonzero(scan.hu < -850 - 0.25 * 200)
        extent_mm = np.ptp(z) + 1, (np.ptp(x) + 1) * SPACING[2]
        assert extent_mm == pytest.approx(expected, abs=1.1)


def test_structures_lie_apart_in_their_tissue_and_each_kind_as_often() -> None:
    scan = air((120, 120, 120))
    scan.hu[:, :60] = 50.0
    scan.hu[:, :60] += np.random.default_rng(0).normal(0, 10, scan.hu[:, :60].shape).astype(np.float32)
    chosen = sites(scan, np.random.default_rng(0))
    places = np.array([place for _, place in chosen])
    assert len(chosen) > 60
    for number, place in enumerate(places):
        assert (np.abs(np.delete(places, number, 0) - place) > (15, 11, 11)).any(axis=1).all()
    assert all((place[1] < 48) == (structure.tissue == "soft tissue") for structure, place in chosen)
    counts = np.unique([json.dumps(str(it)) for it, _ in chosen if it.tissue == "lung"], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_an_observer_sees_a_strong_signal_always_and_none_by_chance() -> None:
    rng = np.random.default_rng(1)
    noise, signal = rng.normal(0, 10, (400, 5, 5, 5)), np.zeros((5, 5, 5))
    signal[2, 2, 2] = 1
    for strength, area in {0.01: 0.5, 10.0: 0.760, 100.0: 1.0}.items():  # Phi(d' / sqrt(2)) with d' = strength / 10
        assert observed(noise + strength * signal, noise) == pytest.approx(area, abs=0.04)


def test_a_method_that_keeps_half_is_said_to_keep_half_in_the_tables() -> None:
    ball, rng, found = Structure("lung", "ball", 5, 200), np.random.default_rng(2), []
    for _ in range(8):
        scan = air((30, 40, 40))
        scan.hu[:] += rng.normal(0, 5, scan.hu.shape).astype(np.float32)
        twin, centre = scan.hu.copy(), np.array([15, 16, 14]) + rng.random(3)
        paint(scan, centre, ball)
        cut = around(scan.hu.shape, SPACING, centre, 6)
        half = (scan.hu + twin) / 2
        absent = dict.fromkeys(("truth", "model", *METHODS), twin[cut])
        present = absent | {"truth": scan.hu[cut], "model": half[cut]}
        found.append(Found(ball, centre, present, absent))
    records = [{"planted": list(judged(found))}]
    rows = {row["method"]: row for row in records[0]["planted"]}
    assert rows["model"]["kept"] == pytest.approx(0.5, abs=1e-4)
    assert rows["truth"]["kept"] == 1
    assert rows["nearest"]["kept"] == 0
    assert rows["nearest"]["area"] == 0.5
    assert any("| ball, 5 mm | - | 0.00 / 0.00 / 0.50 / - | - |" in str(it) for it in planted_tables(records))


def test_a_blob_answers_with_its_contrast_and_is_invented_where_the_truth_has_none() -> None:
    truth, estimate = air(), air()
    for scan, centres in ((truth, [(15, 20, 20)]), (estimate, [(15, 20, 20), (26, 30, 28)])):
        for centre in centres:
            paint(scan, np.array(centre) + 0.25, Structure("lung", "ball", 6, 300))
    responses = [blob_response(scan.hu, SPACING, 6) for scan in (estimate, truth)]
    assert responses[1].max() == pytest.approx(300, rel=0.1)
    found, invented = unmatched(*responses, 100, SPACING)
    lost = unmatched(*responses[::-1], 100, SPACING)[1]
    assert (found.sum(), invented.sum(), lost.sum()) == (2, 1, 0)
    assert np.argwhere(invented)[0] == pytest.approx([26, 37, 40], abs=1)
    assert not blob_peaks(responses[0], 400, SPACING).any()
    row = {"region": "lung", "size_mm": 3.0, "litres": 0.5}
    names = (*METHODS, "model", "sample")
    counts = [
        row | {"method": name, "least_hu": hu, "found": 2, "invented": 1, "true": 1, "lost": 0}
        for name in names
        for hu in (50.0, 100.0, 200.0)
    ]
    assert "| model | 1 of 2; 0 of 1 |" in str(next(counted_tables([{"counted": counts}])))


def test_a_ranking_is_one_where_the_bad_have_the_greatest_scores() -> None:
    scores, bad = np.arange(10.0), np.arange(10) > 6
    assert ranking(scores, bad) == 1
    assert ranking(-scores, bad) == 0
    assert ranking(scores, np.zeros(10, bool)) is None


def test_the_picture_shows_the_place_with_the_head_up() -> None:
    hu = np.full((60, 60, 60), -1350, np.float32)
    hu[40:, 30] = 150
    png = picture([Case("a case", "lung", (30, 30, 30), {"truth": hu})], (1.0, 1.0, 1.0))
    shown = np.asarray(Image.open(io.BytesIO(png)))
    assert shown[60, 80] == 255
    assert shown[180, 80] == 0
