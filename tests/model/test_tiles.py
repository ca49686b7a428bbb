import itertools
import math

import pytest
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.denoiser import Denoiser
from ctinterp_dagster.model.slice_unet import SliceUNet
from ctinterp_dagster.model.tiles import Reach, tile_that_fits, tiled

SIZE = (5, 70, 50)


def loud(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that every layer matters."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(requires_grad=False)


def whole_and_reach(kind: str) -> tuple[object, int, Reach]:
    torch.manual_seed(1)
    if kind == "latent":
        denoiser = loud(Denoiser(2, 2, channels=(4, 8, 8), blocks=1))
        return (lambda x: denoiser(x[:, :2], x[:, 2:], torch.tensor([0.7]))), 2, denoiser.reach
    network = loud(SliceUNet(4, 3, (8, 8, 8), 1, 3))
    return (lambda x: network(x, torch.tensor([[0.1, -0.2, 1.0]]))), 3, network.reach


@pytest.mark.parametrize("kind", ["latent", "slices"])
@pytest.mark.parametrize("share", [1.0, 0.8, 0.55])
def test_tiles_answer_what_the_whole_answers(kind: str, share: float) -> None:
    network, channels, reach = whole_and_reach(kind)
    size = (8, 160, 120)
    x = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
    memory_gib = share * math.prod(size) * reach.bytes_per_voxel / 2**30
    whole = tiled(network, x, channels, reach, None)
    parts = tiled(network, x, channels, reach, memory_gib)
    assert float((parts - whole).norm() / whole.norm()) < 1e-5
    assert float((parts - whole).abs().max() / whole.std()) < 1e-4


def test_a_smaller_budget_makes_smaller_windows() -> None:
    seen: list[int] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(math.prod(x.shape[2:]))
        return x[:, :1]

    reach = Reach((1, 2, 2), (1, 4, 4), 100)
    tiled(watched, torch.zeros(1, 2, *SIZE), 1, reach, math.prod(SIZE) * 200 / 2**30)
    assert seen == [math.prod(SIZE)]
    tiled(watched, torch.zeros(1, 2, *SIZE), 1, reach, math.prod(SIZE) * 25 / 2**30)
    assert max(seen[1:]) * 100 <= math.prod(SIZE) * 25


def test_a_budget_that_no_tile_fits_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"for its smallest tile, got memory_gib=1e-08: raise it"):
        tiled(lambda x: x, torch.zeros(1, 1, *SIZE), 1, Reach((1, 1, 1), (1, 1, 1), 100), 1e-8)


def voxels_seen(size: tuple[int, ...], tile: tuple[int, ...], reach: Reach) -> list[int]:
    """Of each tile with its halo."""
    inside = [
        [len(range(max(0, a - halo), min(n, a + step + halo))) for a in range(0, n, step)]
        for n, step, halo in zip(size, tile, reach.halo, strict=True)
    ]
    return [math.prod(sides) for sides in itertools.product(*inside)]


def test_no_other_tile_that_fits_sees_fewer_voxels() -> None:
    reach, size = Reach((2, 6, 6), (1, 4, 4), 1000), (6, 48, 36)
    bound = 6 * 30 * 30
    chosen = tile_that_fits((1, 14, *size), reach, bound * 1000 / 2**30)
    others = itertools.product(range(1, 7), range(4, 49, 4), range(4, 37, 4))
    fitting = [seen for tile in others if max(seen := voxels_seen(size, tile, reach)) <= bound]
    assert len(fitting) > 100
    assert max(voxels_seen(size, chosen, reach)) <= bound
    assert sum(voxels_seen(size, chosen, reach)) == min(map(sum, fitting))
    assert tile_that_fits((1, 14, *size), reach, 10.0) == size
