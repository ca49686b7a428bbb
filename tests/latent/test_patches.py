import pytest
import torch
from torch.testing import assert_close

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.training.batches import seeded


def coordinates(*size: int, offset: float = 0.0) -> LatentPair:
    """A pair whose channels say where each voxel lies; target = condition + offset."""
    grid = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij"))
    return LatentPair(grid, grid + offset)


def patches(*pairs: LatentPair, flips: tuple[int, ...] = (), share: float = 0.0, batch_size: int = 16) -> LatentPatches:
    return LatentPatches(pairs, PatchSettings((2, 3, 4), flips, share), batch_size)


def test_a_batch_depends_on_its_seed_only() -> None:
    source = patches(coordinates(5, 6, 7), flips=(0, 1, 2))
    first, again, other = (source.plan(seeded(0, index)).parts for index in (4, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[2], other[2])


def test_condition_and_target_are_cut_and_mirrored_together() -> None:
    condition, target, noise, t = patches(coordinates(5, 6, 7, offset=100.0), flips=(0, 1, 2)).plan(seeded(0)).parts
    assert condition.shape == target.shape == noise.shape == (16, 3, 2, 3, 4)
    assert t.shape == (16,)
    assert_close(target, condition + 100.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_the_chosen_axis_is_mirrored_and_half_of_the_time(axis: int) -> None:
    condition = patches(coordinates(5, 6, 7), flips=(axis,), batch_size=200).plan(seeded(1)).parts.condition
    for other in range(3):
        steps = condition[:, other].diff(dim=other + 1).flatten(1)[:, 0]
        mirrored = float((steps < 0).float().mean())
        assert mirrored == 0.0 if other != axis else 0.35 < mirrored < 0.65


def test_every_case_and_every_place_is_reached() -> None:
    condition = patches(coordinates(3, 3, 4), coordinates(2, 4, 4), batch_size=200).plan(seeded(0)).parts.condition
    corners = {tuple(corner) for corner in condition[:, :, 0, 0, 0].int().tolist()}
    assert corners == {(0, 0, 0), (1, 0, 0), (0, 1, 0)}


def test_a_short_case_is_replicated_at_its_far_end() -> None:
    condition = patches(coordinates(1, 3, 4)).plan(seeded(0)).parts.condition
    assert condition.shape == (16, 3, 2, 3, 4)
    assert torch.equal(condition[:, :, 0], condition[:, :, 1])


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 1.0, 1.0)])
def test_the_share_of_one_step_samples_is_at_pure_noise(share: float, low: float, high: float) -> None:
    t = patches(coordinates(2, 3, 4), share=share, batch_size=500).plan(seeded(0)).parts.t
    assert low <= float((t == 1.0).float().mean()) <= high


def test_validation_batches_are_fixed_and_span_time() -> None:
    source = patches(coordinates(5, 6, 7), batch_size=4)
    first, again = source.fixed(2, seed=3), source.fixed(2, seed=3)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))
    assert_close(torch.cat([batch.t for batch in first]), torch.arange(1, 9) / 8)


def test_the_fingerprint_tells_data_and_patches_apart() -> None:
    same = {patches(coordinates(3, 3, 4)).fingerprint() for _ in range(2)}
    others = {
        patches(coordinates(3, 3, 4, offset=1.0)).fingerprint(),
        patches(coordinates(3, 3, 4), flips=(1,)).fingerprint(),
        patches(coordinates(3, 3, 4), coordinates(3, 3, 4)).fingerprint(),
    }
    assert len(same) == 1
    assert len(same | others) == 4


def test_latents_on_different_grids_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"on one grid, got \(4, 2, 3, 4\) and \(4, 2, 3, 5\)"):
        LatentPair(torch.zeros(4, 2, 3, 4), torch.zeros(4, 2, 3, 5))


def test_no_case_is_refused() -> None:
    with pytest.raises(TrainingError, match="no case to train on: check the splits"):
        patches()


@pytest.mark.parametrize("bad", [((0, 1, 1), (), 0.0), ((1, 1, 1), (3,), 0.0), ((1, 1, 1), (), 1.1)])
def test_impossible_patches_are_refused(bad: tuple[tuple[int, int, int], tuple[int, ...], float]) -> None:
    with pytest.raises(ParamsError, match="a patch has sizes >= 1"):
        PatchSettings(*bad)
