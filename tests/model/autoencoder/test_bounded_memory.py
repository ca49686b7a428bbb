"""Slab by slab gives the whole-volume result, in the memory that was allowed."""

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.autoencoder_memory import predicted_peaks_gib
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, bounded_memory, layers
from ctinterp_dagster.model.autoencoder.bounded_memory import GIB, Budget, Field, SlabPlan, in_slabs
from ctinterp_dagster.model.autoencoder.layers import Doubling, LocalConv

TOLERANCE = 1e-5
SIZE_ZYX = (22, 15, 16)


class Forced(Budget):
    """A budget with slabs of a given thickness, that stores everything or nothing."""

    def __init__(self, rows: int, *, store: bool) -> None:
        super().__init__(1e9)
        self.rows, self.store = rows, store

    def may_store(self, candidate: Field) -> bool:
        return self.store

    def start_pass(self, target: Field) -> None:
        self.plan = SlabPlan(min(self.rows, target.depth), target.depth)
        target.slab_bytes(self.plan)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tensors this small cost more to share out than to compute, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> MaisiAutoencoder:
    torch.manual_seed(0)
    model = MaisiAutoencoder((8, 16, 16), 4, 4).eval().requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def volume() -> Tensor:
    # A gradient along z: the statistics of a slab are far from those of the volume.
    noise = torch.rand(1, 1, *SIZE_ZYX, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0, 1, SIZE_ZYX[0])[:, None, None]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 8, 24])
def test_every_slab_thickness_gives_the_whole_volume_result(
    model: MaisiAutoencoder, volume: Tensor, rows: int, *, store: bool
) -> None:
    x = torch.nn.functional.pad(volume, (0, 0, 0, 1, 0, 2))
    assert relative_error(in_slabs(model.encoder, x, Forced(rows, store=store)), model.encoder(x)) < TOLERANCE
    z = model.encode(volume).mean
    assert relative_error(in_slabs(model.decoder, z, Forced(rows, store=store)), model.decoder(z)) < TOLERANCE


@pytest.mark.parametrize("memory_gib", [0.002, 0.004, 1.0])
def test_bounded_memory_changes_neither_the_latent_nor_the_volume(
    model: MaisiAutoencoder, volume: Tensor, memory_gib: float
) -> None:
    expected = model.encode(volume)
    actual = model.encode(volume, memory_gib=memory_gib)
    assert relative_error(actual.mean, expected.mean) < TOLERANCE
    assert relative_error(actual.log_variance, expected.log_variance) < TOLERANCE
    decoded = model.decode(expected.mean, SIZE_ZYX, memory_gib=memory_gib)
    assert decoded.shape == volume.shape
    assert relative_error(decoded, model.decode(expected.mean, SIZE_ZYX)) < TOLERANCE


def test_two_volumes_of_a_batch_do_not_share_statistics(model: MaisiAutoencoder, volume: Tensor) -> None:
    both = model.encode(torch.cat([volume, 0.3 * volume]), memory_gib=0.004).mean
    assert relative_error(both[:1], model.encode(volume).mean) < TOLERANCE
    assert relative_error(both[1:], model.encode(0.3 * volume).mean) < TOLERANCE


def test_statistics_of_a_slab_instead_of_the_volume_would_be_noticed(
    model: MaisiAutoencoder, volume: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, whole = bounded_memory.group_moments, model.encode(volume).mean

    def of_the_first_rows(rows: Iterable[Tensor], norm: nn.GroupNorm, batch: int) -> tuple[Tensor, Tensor]:
        return exact((slab[:, :, :4] for slab in rows), norm, batch)

    monkeypatch.setattr(bounded_memory, "group_moments", of_the_first_rows)
    assert relative_error(model.encode(volume, memory_gib=1.0).mean, whole) > 0.05


@settings(max_examples=60)
@given(
    st.sampled_from(["conv", "strided", "mixing", "doubling"]),
    st.integers(1, 8).map(lambda n: 2 * n),
    st.data(),
)
def test_any_rows_of_any_local_layer_are_those_of_the_whole(kind: str, depth: int, data: st.DataObject) -> None:
    torch.manual_seed(0)
    layer = {
        "conv": LocalConv(3, 5),
        "strided": LocalConv(3, 5, stride=2),
        "mixing": LocalConv(3, 5, kernel=1),
        "doubling": Doubling(),
    }[kind]
    x = torch.rand(1, 3, depth, 6, 8)
    with torch.no_grad():
        whole = layer(x)
        assert tuple(whole.shape) == layer.output_shape(tuple(x.shape))
        start = data.draw(st.integers(0, whole.shape[2] - 1))
        stop = data.draw(st.integers(start + 1, whole.shape[2]))
        first, last = layer.source_rows(start, stop)
        rows = layer.rows(x[:, :, max(first, 0) : min(last, depth)], start, stop, depth)
    assert rows.shape == whole[:, :, start:stop].shape
    assert torch.allclose(rows, whole[:, :, start:stop], atol=1e-6)


class PeakMemory(TorchDispatchMode):
    """Bytes of all tensors that are alive at the same time, as torch's operators make them."""

    def __init__(self) -> None:
        super().__init__()
        self.known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.alive = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.device.type == "cpu":
            self.add(result.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.known:
            self.known[storage] = True
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self.drop, storage.nbytes())

    def drop(self, size: int) -> None:
        self.alive -= size


@pytest.mark.parametrize("memory_gib", [0.0025, 0.006])
def test_the_memory_that_tensors_take_stays_below_the_bound_and_the_prediction(
    model: MaisiAutoencoder, volume: Tensor, memory_gib: float
) -> None:
    predicted = predicted_peaks_gib(model, SIZE_ZYX, memory_gib)
    latent = model.encode(volume).mean
    for stage, peak_gib in ((model.encode, predicted["encode"]), (model.decode, predicted["decode"])):
        gc.collect()
        with PeakMemory() as memory:
            stage(volume if stage == model.encode else latent, memory_gib=memory_gib)
        assert memory.peak / GIB <= peak_gib <= memory_gib
        assert memory.peak / GIB > 0.3 * peak_gib


def test_a_deep_volume_takes_no_more_memory_than_was_allowed_where_the_whole_would(model: MaisiAutoencoder) -> None:
    deep = torch.rand(1, 1, 200, 16, 16, generator=torch.Generator().manual_seed(4))
    peaks = []
    for memory_gib in (None, 0.002):
        with PeakMemory() as memory:
            model.encode(deep, memory_gib=memory_gib)
        peaks.append(memory.peak / GIB)
    assert peaks[1] < 0.002
    assert peaks[0] > 2 * peaks[1]


def test_a_hospital_scan_fits_in_eight_gibibytes_at_full_width() -> None:
    with torch.device("meta"):
        full = MaisiAutoencoder()
    assert all(2.0 < peak <= 8.0 for peak in predicted_peaks_gib(full, (256, 512, 512), 8.0).values())


@pytest.mark.parametrize("memory_gib", [0.0001, 0.0, -1.0, float("nan")])
def test_too_little_memory_is_refused_before_anything_is_computed(
    model: MaisiAutoencoder, volume: Tensor, memory_gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalConv, "rows", lambda *_: pytest.fail("computed"))
    with pytest.raises(ParamsError, match=r"memory_gib=\S+ is too small: one row of a layer .* needs \S+ GiB"):
        model.encode(volume, memory_gib=memory_gib)


def test_slabs_stay_small_enough_for_a_gpu_to_count_however_much_memory_there_is(
    model: MaisiAutoencoder, volume: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = model.encode(volume).mean
    expected, plenty = model.decoder(z), Budget(1e9)
    monkeypatch.setattr(bounded_memory, "LARGEST_SLAB", 1 << 17)
    assert relative_error(in_slabs(model.decoder, z, plenty), expected) < TOLERANCE
    assert plenty.plan.rows < plenty.plan.depth == expected.shape[2]


def test_the_input_is_left_as_it_was(model: MaisiAutoencoder, volume: Tensor) -> None:
    before = volume.clone()
    model.encode(volume, memory_gib=0.004)
    assert torch.equal(volume, before)


@pytest.fixture
def plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "fast_layer", lambda _: None)


@pytest.mark.usefixtures("plain_layers")
@pytest.mark.parametrize("network", ["encoder", "decoder"])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_every_layer_computes_its_rows_in_order_and_once_in_each_pass(
    model: MaisiAutoencoder, network: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: dict[LocalConv, int] = {}
    plain = LocalConv.rows

    def watched(layer: LocalConv, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        assert start in (0, last.get(layer, 0)), "rows were computed again, or skipped"
        last[layer] = stop
        return plain(layer, x, start, stop, depth)

    monkeypatch.setattr(LocalConv, "rows", watched)
    size = (1, 1, 24, 16, 16) if network == "encoder" else (1, 4, 6, 4, 4)
    in_slabs(getattr(model, network), torch.rand(size), Forced(rows, store=False))
    assert len(last) == sum(isinstance(module, LocalConv) for module in getattr(model, network).modules())


@pytest.mark.usefixtures("plain_layers")
def test_no_row_is_computed_twice_in_one_pass(model: MaisiAutoencoder, volume: Tensor) -> None:
    computed: list[int] = []
    layer = LocalConv(1, 4)
    plain = layer.rows

    def counted(x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        computed.extend(range(start, stop))
        return plain(x, start, stop, depth)

    layer.rows = counted  # type: ignore[method-assign]
    second = LocalConv(4, 4)
    in_slabs(lambda x: second(layer(x)), volume, Forced(3, store=False))
    assert computed == list(range(volume.shape[2]))


def test_a_pass_leaves_no_rows_behind(volume: Tensor) -> None:
    budget = Forced(3, store=False)
    first = Field(volume, budget, 4).through(LocalConv(1, 2))
    second = first.through(LocalConv(2, 2))
    with torch.no_grad():
        during = [first._recent is not None for _ in second.sweep()]
    assert all(during)
    assert first._recent is None
    assert second._recent is None
