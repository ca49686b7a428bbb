import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.model import quantized
from ctinterp_dagster.model.quantized import LEAST, LEVELS, QuantizedConv, Quantizer

needs_instructions = pytest.mark.skipif(not quantized.is_exact(), reason="this processor has no products of eight bits")


def activations(*shape: int) -> Tensor:
    """SiLU of normal numbers, channels last."""
    numbers = functional.silu(torch.randn(*shape, generator=torch.Generator().manual_seed(0)))
    return numbers.contiguous(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)


def levels(quantizer: Quantizer, x: Tensor) -> Tensor:
    out = torch.empty_like(x, dtype=torch.uint8)
    quantizer.write(x.clone(), out)
    return out


def test_a_number_is_off_by_half_a_step_up_to_the_peak_and_stays_there_above_it() -> None:
    quantizer = Quantizer.up_to(4.0)
    x = torch.linspace(LEAST, 4.0, 1000)
    restored = quantizer.scale * (levels(quantizer, x).float() - quantizer.zero)
    assert (restored - x).abs().max() <= 0.51 * quantizer.scale + abs(LEAST / quantizer.scale + quantizer.zero) * 0.02
    assert levels(quantizer, torch.tensor([9.0])).item() == LEVELS
    assert levels(quantizer, torch.zeros(1)).item() == quantizer.zero


@needs_instructions
@pytest.mark.parametrize("taps", [2, 3], ids=["plane", "volume"])
def test_a_convolution_in_eight_bits_is_that_in_floating_point_at_the_edges_too(taps: int) -> None:
    torch.manual_seed(1)
    x = activations(1, 16, *(5, 9, 11)[3 - taps :])
    weight, bias = torch.randn(24, 16, *[3] * taps) / 12, torch.randn(24)
    quantizer = Quantizer.up_to(x.max().item())
    padding = [0, 1, 1][3 - taps :]
    expected = (functional.conv2d if taps == 2 else functional.conv3d)(x, weight, bias, padding=padding)
    given = QuantizedConv(weight, bias, quantizer)(levels(quantizer, x), torch.float32)
    assert given.shape == expected.shape
    assert (given - expected).abs().max() < 0.05 * expected.std()


@needs_instructions
def test_silu_of_the_sums_comes_in_eight_bits() -> None:
    torch.manual_seed(1)
    x, weight, bias = activations(2, 16, 9, 11), torch.randn(24, 16, 3, 3) / 12, torch.randn(24)
    expected = functional.silu(functional.conv2d(x, weight, bias, padding=1))
    entering, leaving = Quantizer.up_to(x.max().item()), Quantizer.up_to(expected.max().item())
    given = QuantizedConv(weight, bias, entering).silu(levels(entering, x), leaving)
    assert given.dtype == torch.uint8
    restored = leaving.scale * (given.float() - leaving.zero)
    assert (restored - expected).abs().max() < leaving.scale + 0.03 * expected.std()


def test_a_processor_without_the_instructions_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert not quantized.is_exact.__wrapped__()


def test_the_peaks_are_those_of_the_windows_that_vary_most() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return self.layer(x) + condition.sum()

    network, x = Network(), torch.zeros(1, 2, 4, 256, 192)
    x[0, 0, 2, 200, 100], x[0, 1, 2, 200, 100] = 3.0, 7.0
    x[0, 1, 0, 200, 10] = 50.0  # where the first channel is flat, and more windows than are looked at vary
    for n, corner in enumerate([(0, 0), (64, 64), (0, 128)]):
        x[0, 0, 0, corner[0], corner[1]] = 2.0 + n
    found = quantized.peaks(network, [network.layer], x, torch.zeros(1, 3))
    assert found == {network.layer: 7.0}
    by_another = quantized.peaks(network, [network.layer], x, torch.zeros(1, 3), guide=1)
    assert by_another == {network.layer: 50.0}
