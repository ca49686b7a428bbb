"""The layers as they run on a CPU give what a plain convolution gives, and take the memory that they say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model import winograd
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, fast_layers
from ctinterp_dagster.model.autoencoder.fast_layers import FromOneChannel, Pointwise, ToOneChannel, Winograd, fast_layer
from ctinterp_dagster.model.autoencoder.layers import Doubling, LocalConv

TOLERANCE = 1e-5


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def exact(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    bias = convolution.bias.double()
    return functional.conv3d(x.double(), convolution.weight.double(), bias, padding=convolution.kernel_size[0] // 2)


@settings(max_examples=60)
@given(st.sampled_from([Winograd, Pointwise, FromOneChannel, ToOneChannel]), st.integers(1, 7), st.data())
@torch.no_grad()
def test_any_rows_of_any_fast_layer_are_those_of_the_whole(
    kind: type[fast_layers._Fast], depth: int, data: st.DataObject
) -> None:
    torch.manual_seed(0)
    into, out = {FromOneChannel: (1, 5), ToOneChannel: (5, 1)}.get(kind, (3, 5))
    convolution = LocalConv(into, out, kernel=1 if kind is Pointwise else 3)
    layer, x = kind(convolution), torch.rand(2, into, depth, 6, 9)
    whole = exact(convolution, x)
    assert layer.output_shape(tuple(x.shape)) == tuple(whole.shape)
    start = data.draw(st.integers(0, depth - 1))
    stop = data.draw(st.integers(start + 1, depth))
    first, last = layer.source_rows(start, stop)
    rows = layer.rows(x[:, :, max(first, 0) : min(last, depth)], start, stop, depth)
    assert rows.shape == whole[:, :, start:stop].shape
    assert relative_error(rows, whole[:, :, start:stop]) < TOLERANCE


@torch.no_grad()
def test_a_layer_is_chosen_by_its_channels_and_only_for_float32_on_a_cpu() -> None:
    wide = winograd.LEAST_WIDTH
    assert isinstance(fast_layer(LocalConv(wide, wide)), Winograd)
    assert isinstance(fast_layer(LocalConv(1, wide)), FromOneChannel)
    assert isinstance(fast_layer(LocalConv(wide, 1)), ToOneChannel)
    assert isinstance(fast_layer(LocalConv(4, 8, kernel=1)), Pointwise)
    for slow in (LocalConv(wide, 4), LocalConv(wide, wide, stride=2), LocalConv(wide, wide).double()):
        assert fast_layer(slow) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert fast_layer(LocalConv(wide, wide)) is None


@torch.no_grad()
def test_doubling_is_torchs_trilinear_interpolation() -> None:
    x = torch.rand(2, 3, 4, 1, 5)
    expected = functional.interpolate(x.double(), scale_factor=2.0, mode="trilinear")
    assert relative_error(Doubling()(x), expected) < 1e-6


@pytest.mark.parametrize("memory_gib", [None, 0.012, 0.02])
@torch.no_grad()
def test_fast_and_plain_layers_make_the_same_latent_and_volume(
    memory_gib: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_WIDTH", 8)
    torch.manual_seed(0)
    model = MaisiAutoencoder((8, 16, 16), 4, 4).eval()
    x = torch.rand(1, 1, 24, 20, 28)
    with monkeypatch.context() as patch:
        patch.setattr("ctinterp_dagster.model.autoencoder.layers.fast_layer", lambda _: None)
        latent = model.encode(x).mean
        volume = model.decode(latent)
    assert relative_error(model.encode(x, memory_gib=memory_gib).mean, latent) < TOLERANCE
    assert relative_error(model.decode(latent, memory_gib=memory_gib), volume) < TOLERANCE
