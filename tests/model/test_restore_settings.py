from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ctinterp_dagster.model import quantized
from ctinterp_dagster.model.quantized import LEVELS
from ctinterp_dagster.model.restore_settings import quickest_precision

PRODUCTS = LEVELS * 64 * 9  # the sum that `is_exact` asks a convolution for


@pytest.mark.parametrize(
    ("instructions", "share", "expected"),
    [
        (("avx2",), 1.0, "no"),
        (("avx2", "avx512_f"), 1.0, "no"),
        (("avx512_bf16",), 1.0, "bf16"),
        (("amx_bf16",), 1.0, "bf16"),
        (("avx_vnni",), 1.0, "int8"),
        (("avx512_vnni", "avx512_bf16"), 1.0, "int8"),
        (("amx_int8", "amx_bf16"), 1.0, "int8"),
        (("avx512_vnni", "avx512_bf16"), 0.99, "bf16"),
        (("avx_vnni",), 0.99, "no"),
    ],
)
def test_the_fastest_precision_follows_from_the_instructions_and_eight_bits_from_exact_products(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], share: float, expected: str
) -> None:
    def convolution(*_: object) -> Callable[[Tensor, torch.dtype], Tensor]:
        return lambda x, dtype: torch.full(x.shape, share * PRODUCTS, dtype=dtype)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))
    monkeypatch.setattr(quantized, "QuantizedConv", convolution)
    monkeypatch.setattr(quantized, "is_exact", quantized.is_exact.__wrapped__)
    assert quickest_precision(torch.device("cpu")) == expected
