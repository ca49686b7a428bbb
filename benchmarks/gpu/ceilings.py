"""Section `ceilings`: what the card reaches at best, and which widths and memory layouts pay.

All in bf16. TFLOP/s count two operations a multiplication; backward counts twice forward.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.gpu.context import GIB, Context, Numbers

WIDTHS = (48, 64, 96, 128, 192)
SECONDS = 0.05  # a measurement, after its warm-up


def ceilings(context: Context) -> None:
    """Measure."""
    n = 256 if context.small else 8192
    a = torch.randn(n, n, device=context.device, dtype=torch.bfloat16)
    context.part("matmul", lambda: rate(context, lambda: a @ a, 2.0 * n**3))
    numbers = (1 << 20) if context.small else (1 << 31)
    context.part("copy", lambda: bandwidth(context, numbers))
    batch, width, size = (1, 16, 8) if context.small else (8, 256, 64)
    context.part(
        "conv3d at best", lambda: convolution(context, (batch, width, size, size, size), 3, last=True, searched=False)
    )
    slab = (1, 4, 8, 8) if context.small else (32, 8, 64, 64)
    for searched in (False, True):
        for channels in WIDTHS[:2] if context.small else WIDTHS:
            for axes in (2, 3):
                shape = (slab[0], channels, *slab[1:]) if axes == 3 else (slab[0] * slab[1], channels, *slab[2:])
                for last in (True, False):
                    name = f"conv{axes}d {channels} {'channels_last' if last else 'contiguous'}"
                    context.part(
                        f"{name}{' searched' if searched else ''}",
                        lambda shape=shape, axes=axes, last=last, searched=searched: convolution(
                            context, shape, axes, last=last, searched=searched
                        ),
                    )


def rate(context: Context, run: Callable[[], object], operations: float) -> Numbers:
    """TFLOP/s."""
    return {"tflops": operations / seconds(context, run) / 1e12}


def bandwidth(context: Context, numbers: int) -> Numbers:
    """GiB that are read and written a second, where so many bytes are copied on the device."""
    source = torch.zeros(numbers, device=context.device, dtype=torch.int8)
    target = torch.empty_like(source)
    return {"gib_per_s": 2 * source.nbytes / GIB / seconds(context, lambda: target.copy_(source))}


def convolution(context: Context, shape: tuple[int, ...], axes: int, *, last: bool, searched: bool) -> Numbers:
    """A convolution of width 3 between as many channels, forward, and forward and backward.

    Args:
        context: of the section.
        shape: of the input.
        axes: 2 or 3.
        last: channels last in memory.
        searched: whether cuDNN tries its algorithms first.

    Returns:
        Both rates in TFLOP/s by name.
    """
    contiguous = torch.contiguous_format
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[axes] if last else contiguous
    convolve = {2: functional.conv2d, 3: functional.conv3d}[axes]
    given = {"device": context.device, "dtype": torch.bfloat16}
    x = torch.randn(shape, **given).contiguous(memory_format=layout).requires_grad_()  # type: ignore[call-overload]
    weight = torch.randn(shape[1], shape[1], *[3] * axes, **given) * 0.01  # type: ignore[call-overload]
    weight = weight.contiguous(memory_format=layout).requires_grad_()
    operations = 2.0 * x.numel() * shape[1] * 3**axes

    def forward() -> None:
        with torch.no_grad():
            convolve(x, weight, padding=1)

    def both() -> None:
        y = convolve(x, weight, padding=1)
        torch.autograd.grad(y, (x, weight), y.detach())

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = searched
    try:
        return {
            "forward_tflops": operations / seconds(context, forward) / 1e12,
            "both_tflops": 3 * operations / seconds(context, both) / 1e12,
        }
    finally:
        torch.backends.cudnn.benchmark = before


def seconds(context: Context, run: Callable[[], object]) -> float:
    """Mean seconds of a call, over as many as take `SECONDS`."""
    run()
    one = context.cost(run).seconds
    calls = max(1, min(100, int(SECONDS / one)))

    def repeated() -> None:
        for _ in range(calls):
            run()

    return context.cost(repeated).seconds / calls
