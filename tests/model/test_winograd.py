"""Winograd's convolutions give what plain ones give, at any size and in any blocks."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ctinterp_dagster.model import winograd

SIZES = [(5, 13, 10), (1, 3, 3), (40, 20, 9), (3, 4, 300), (2, 1, 1)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def convolved(x: Tensor, weight: Tensor, before: int = 0, after: int = 0) -> Tensor:
    """Of (z, y, x, in); `before` and `after` are rows of zeros."""
    lost = 2 if weight.ndim == 5 else 0
    target = torch.full((len(x) + before + after - lost, *x.shape[1:3], len(weight)), torch.nan)
    winograd.convolve(x, winograd.transform_kernel(weight), target, lambda sums, _: sums, before=before)
    return target


def exact(x: Tensor, weight: Tensor, rows: int) -> Tensor:
    """The same of torch in float64, with as many rows of zeros at either end."""
    volume = weight if weight.ndim == 5 else weight[:, :, None]
    said = functional.conv3d(x.movedim(3, 0)[None].double(), volume.double(), padding=(rows, 1, 1))
    return said[0].movedim(0, 3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_the_transforms_multiply_polynomials() -> None:
    m = winograd.matrices()
    tile = torch.rand(winograd.SPAN, dtype=torch.float64)
    kernel = torch.rand(3, dtype=torch.float64)
    expected = torch.stack([tile[i : i + 3] @ kernel for i in range(winograd.TILE)])
    assert torch.allclose(m.output @ ((m.kernel @ kernel) * (m.tile @ tile)), expected, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("taps", [(3, 3), (3, 3, 3)])
@torch.inference_mode()
def test_it_is_a_convolution_at_any_size(size: tuple[int, int, int], taps: tuple[int, ...]) -> None:
    x, weight, rows = torch.randn(*size, 8), torch.randn(7, 8, *taps), len(taps) - 2
    assert relative_error(convolved(x, weight, rows, rows), exact(x, weight, rows)) < 1e-5


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1)])
@torch.inference_mode()
def test_rows_at_either_end_are_zeros_or_the_source_s_own(before: int, after: int) -> None:
    x, weight = torch.randn(6, 9, 10, 4), torch.randn(5, 4, 3, 3, 3)
    whole = exact(x, weight, 1)[1 - before : 5 + after]
    assert relative_error(convolved(x, weight, before, after), whole) < 1e-5


@torch.inference_mode()
def test_blocks_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "PRODUCTS_TOGETHER", 6)
    monkeypatch.setattr(winograd, "MAX_ROWS", 2)
    x, weight = torch.randn(5, 21, 34, 4), torch.randn(4, 4, 3, 3, 3)
    assert relative_error(convolved(x, weight, 1, 1), exact(x, weight, 1)) < 1e-5


@torch.inference_mode()
def test_what_enters_and_what_is_written_can_be_changed_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "PRODUCTS_TOGETHER", 6)
    x, weight = torch.randn(3, 21, 34, 4), torch.randn(4, 4, 3, 3)
    target = torch.empty_like(x)
    kernel = winograd.transform_kernel(weight)
    winograd.convolve(x, kernel, target, lambda sums, place: 2 * sums + x[place], torch.sin)
    assert relative_error(target, 2 * exact(x.sin(), weight, 0) + x) < 1e-5


@torch.inference_mode()
def test_a_source_with_its_channels_first_in_memory_gives_the_same() -> None:
    x, weight = torch.randn(8, 4, 9, 10).movedim(0, 3), torch.randn(5, 8, 3, 3)
    assert relative_error(convolved(x, weight), exact(x, weight, 0)) < 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("taps", [(3, 3), (3, 3, 3)])
@torch.inference_mode()
def test_no_more_is_held_than_told(
    size: tuple[int, int, int], taps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    front = winograd._front

    def watched(buffer: Tensor, *shape: int) -> Tensor:
        held.append(buffer.numel())
        return front(buffer, *shape)

    monkeypatch.setattr(winograd, "_front", watched)
    x, weight, rows = torch.randn(*size, 8), torch.randn(7, 8, *taps), len(taps) - 2
    convolved(x, weight, rows, rows)
    assert 2 * max(held) <= winograd.scratch_numbers(*size, 8, 7)


def test_it_is_taken_where_products_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = torch.randn(32, 32, 3, 3), torch.randn(32, 31, 3, 3)
    monkeypatch.delenv("MKL_CBWR", raising=False)
    assert winograd.suits(wide)
    assert not winograd.suits(narrow)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert not winograd.suits(wide)
