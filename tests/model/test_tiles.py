import itertools
import math
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.model import winograd
from ctinterp_dagster.model.tiles import Reach, swept, tile_that_fits, tiled, watched
from ctinterp_dagster.nullspace.unet import SliceUNet

SIZE = (5, 70, 50)


def loud(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, so that every layer matters."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(requires_grad=False)


def same(parts: Tensor, whole: Tensor) -> bool:
    """Up to the rounding of sums in another order."""
    alike = float((parts - whole).norm() / whole.norm()) < 1e-5
    return alike and float((parts - whole).abs().max() / whole.std()) < 1e-4


@pytest.mark.parametrize("share", [1.0, 0.8, 0.55])
def test_tiles_answer_what_the_whole_answers(share: float) -> None:
    torch.manual_seed(1)
    network, size = loud(Denoiser(2, 2, channels=(4, 8, 8), blocks=1)), (8, 160, 120)
    x = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))

    def denoise(x: Tensor) -> Tensor:
        return network(x[:, :2], x[:, 2:], torch.tensor([0.7]))

    memory_gib = share * math.prod(size) * network.reach.bytes_per_voxel / 2**30
    assert same(tiled(denoise, x, 2, network.reach, memory_gib), tiled(denoise, x, 2, network.reach, None))


GEOMETRY = torch.tensor([[0.1, -0.2, 1.0]])


@pytest.mark.parametrize("slices_that_fit", [9.0, 4.0, 2.0, 1.5])
def test_a_sweep_answers_what_the_whole_answers(slices_that_fit: float) -> None:
    torch.manual_seed(1)
    network, size = loud(SliceUNet(4, 3, (8, 8, 8), 1, 3)), (9, 161, 122)
    x = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
    shapes: list[tuple[int, ...]] = []

    def seen(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        return network.stream((shapes.append(tuple(chunk.shape[2:])) or chunk for chunk in chunks), GEOMETRY)

    memory_gib = slices_that_fit * math.prod(size[1:]) * network.reach.bytes_per_voxel / 2**30
    parts = swept(seen, x, 3, network.reach, memory_gib)
    assert same(parts, network(x, GEOMETRY))
    whole_plane = all(shape[1:] == size[1:] for shape in shapes)
    assert whole_plane == (slices_that_fit >= 2), "the plane is cut where not even two slices fit"
    assert sum(shape[0] for shape in shapes) == (size[0] if whole_plane else 2 * size[0])
    assert max(map(math.prod, shapes)) <= slices_that_fit * math.prod(size[1:])


def test_work_is_told_while_chunks_go_in_not_only_as_they_come_out() -> None:
    network, x = SliceUNet(4, 3, (8, 8, 8), 2, 3), torch.zeros(1, 4, 12, 16, 16)
    told: list[float] = []

    def seen(chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        for chunk in network.stream(chunks, GEOMETRY):
            told.append(0.0)  # a mark: something comes out
            yield chunk

    memory_gib = 2.0 * 16 * 16 * network.reach.bytes_per_voxel / 2**30
    with watched(told.append):
        swept(seen, x, 3, network.reach, memory_gib)
    assert sum(told) == pytest.approx(network.reach.work * 12 * 16 * 16)
    before_the_first = sum(told[: told.index(0.0)])
    assert before_the_first >= 0.25 * sum(told)


@pytest.mark.parametrize("least_width", [1, 32], ids=["winograd", "plain"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_of_any_size_give_what_the_whole_gives(
    chunk: int, least_width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_WIDTH", least_width)
    torch.manual_seed(2)
    network = loud(SliceUNet(4, 3, (8, 8, 8), 2, 3))
    x = torch.randn(2, 4, 7, 26, 31, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        parts = torch.cat(list(network.stream(iter(x.split(chunk, dim=2)), GEOMETRY)), dim=2)
        whole = network(x, GEOMETRY)
        mirrored = torch.cat(list(network.mirrored(iter(x.split(chunk, dim=2)), GEOMETRY)), dim=2)
        even = torch.cat([x, x[..., -1:]], dim=-1)  # as the network pads the plane
        image = network(even.flip(-1), GEOMETRY).flip(-1)[..., :31]
    assert same(parts, whole)
    assert same(mirrored, image)


def test_a_stream_holds_few_chunks_however_deep_the_volume() -> None:
    network = loud(SliceUNet(1, 1, (4, 4, 4), 1, 3))
    entered: list[weakref.ref[Tensor]] = []
    network.conv_in.register_forward_hook(lambda _layer, _given, said: entered.append(weakref.ref(said)))
    most = 0
    with torch.inference_mode():
        for _ in network.stream(iter(torch.zeros(1, 1, 40, 8, 8).split(1, dim=2)), GEOMETRY):
            most = max(most, sum(reference() is not None for reference in entered))
    assert len(entered) == 40
    assert most <= 2


def test_a_smaller_budget_makes_smaller_windows() -> None:
    seen: list[int] = []

    def network(x: Tensor) -> Tensor:
        seen.append(math.prod(x.shape[2:]))
        return x[:, :1]

    reach = Reach((1, 2, 2), (1, 4, 4), 100)
    tiled(network, torch.zeros(1, 2, *SIZE), 1, reach, math.prod(SIZE) * 200 / 2**30)
    assert seen == [math.prod(SIZE)]
    tiled(network, torch.zeros(1, 2, *SIZE), 1, reach, math.prod(SIZE) * 25 / 2**30)
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
