import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import packing
from benchmarks.packing import pack, unpack

Volume = np.ndarray[tuple[int, int, int], np.dtype[np.int16]]
SIZES = [(1, 1, 1), (1, 31, 17), (7, 1, 1), (2, 5, 3), (13, 22, 29)]


def smooth(shape: tuple[int, int, int]) -> Volume:
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return np.rint(600 * np.sin(z / 9) * np.cos(y / 7) + 3 * x + noise).astype(np.int16)


def bits(volume: Volume) -> float:
    """Of the stream, a voxel."""
    return 8 * pack(volume)["words"].nbytes / volume.size


def assert_restored(volume: Volume) -> None:
    restored = unpack(pack(volume))
    assert restored.dtype == np.int16
    assert restored.shape == volume.shape
    assert (restored == volume).all()


@pytest.mark.parametrize("shape", SIZES)
def test_smooth_noisy_constant_and_extreme_volumes_are_restored(shape: tuple[int, int, int]) -> None:
    random = np.random.default_rng(1)
    assert_restored(smooth(shape))
    assert_restored(random.integers(-(1 << 15), 1 << 15, shape, np.int16))
    assert_restored(random.choice(np.array([-(1 << 15), (1 << 15) - 1], np.int16), shape))
    for value in (-(1 << 15), -1000, 0, (1 << 15) - 1):
        assert_restored(np.full(shape, value, np.int16))


@given(st.tuples(*3 * (st.integers(1, 6),)), st.integers(0, 1 << 32), st.integers(0, 15))
@settings(max_examples=30)
def test_volumes_of_any_size_and_range_are_restored(shape: tuple[int, int, int], seed: int, shift: int) -> None:
    whole = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, shape, np.int16)
    assert_restored(whole >> shift)


def test_a_hyperplane_of_more_voxels_than_lanes_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LANES", 20)
    assert_restored(smooth((13, 22, 29)))


def test_noise_costs_little_more_than_its_entropy() -> None:
    volume = smooth((30, 80, 80))
    entropy = np.log2(15 * np.sqrt(2 * np.pi * np.e))  # of the noise; prediction from noisy neighbours costs the rest
    assert entropy < bits(volume) < entropy + 0.3
    assert bits(np.full((30, 80, 80), -1000, np.int16)) < 0.01


def test_what_the_decoder_reads_are_integers() -> None:
    assert {part.dtype.kind for part in pack(smooth((9, 8, 7))).values()} <= {"i", "u"}
