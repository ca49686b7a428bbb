"""Section `inference`: seconds and memory of restoring a scan, of samples, and of MAISI's autoencoder.

`peak_gib` is what tensors took beside the weights; `bound_kept` says whether that is within `memory_gib`, which of a
restoration bounds the networks alone.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.context import GIB, Context, Numbers, float32
from benchmarks.gpu.subjects import FACTOR, autoencoder, interpolator, measured, phantom, smooth
from ctinterp_dagster.interpolation import Settings
from ctinterp_dagster.physics.operator import ThickeningOperator

KERNELS = 12  # that a profile shows
PARTS_OF_MEMORY = 0.9  # of the device's memory, beyond which a bound is not tried


def inference(context: Context) -> None:
    """Time everything, what matters most first."""
    depth, side = (6, 32) if context.small else (50, 512)
    thick = functional.interpolate(phantom((depth, side // 4, side // 4))[None, None], size=(depth, side, side))[0, 0]
    measurement = measured(thick, ThickeningOperator.from_factor(depth * FACTOR, FACTOR))
    model = interpolator(context.device)

    def restore(settings: Settings) -> Callable[[], object]:
        return lambda: model.restore(measurement, settings)

    bf16, plain = Settings(mixed_precision="bf16"), Settings()
    for memory_gib in (0.05, 1.0) if context.small else (40.0, 3.0):
        for name, settings, tf32 in (("bf16", bf16, True), ("tf32", plain, True), ("float32", plain, False)):
            run = restore(replace(settings, memory_gib=memory_gib))
            context.part(
                f"restore {name} memory_gib={memory_gib:g}", lambda run=run, tf32=tf32: timed(context, run, tf32=tf32)
            )
    context.part("restore bf16, where the time goes", lambda: where(context, restore(replace(bf16, memory_gib=40.0))))
    samples = replace(bf16, samples=1 if context.small else 2, steps=2 if context.small else 8, memory_gib=40.0)
    context.part(f"{samples.samples} samples of {samples.steps} steps bf16", lambda: once(context, restore(samples)))
    maisi(context)


def timed(context: Context, run: Callable[[], object], *, tf32: bool) -> Numbers:
    """Warm up, then time."""
    with float32(tf32=tf32):
        run()
        return context.cost(run, repeats=2).row()


def once(context: Context, run: Callable[[], object]) -> Numbers:
    """Time without a warm-up, for what takes long and runs kernels that ran before."""
    return context.cost(run).row()


def where(context: Context, run: Callable[[], object]) -> Numbers:
    """Print the operations that take most of the device's time."""
    cuda = context.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        run()
        context.wait()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    # An operation's time is that of its kernels, which are events of their own.
    kernels = [event for event in profiler.key_averages() if (event.device_type == DeviceType.CUDA) == cuda]
    operations = [event for event in profiler.key_averages() if cuda and event.device_type == DeviceType.CPU]
    for events in (operations, kernels):
        for event in sorted(events, key=lambda event: -getattr(event, key))[:KERNELS]:
            print(f"    {getattr(event, key) / 1e3:9.2f} ms  {event.count:6d} times  {event.key[:90]}", flush=True)
    return {"seconds": sum(getattr(event, key) for event in kernels) / 1e6}


def maisi(context: Context) -> None:
    """Encode and decode at full width."""
    size = (16, 32, 32) if context.small else (256, 512, 512)
    network = autoencoder(small=context.small).to(context.device)
    volume = smooth(size).to(context.device)
    latent = torch.randn(1, 4, *(n // 4 for n in size), generator=torch.Generator().manual_seed(0)).to(context.device)
    given: dict[str, tuple[Tensor, Callable[[Tensor, float], object]]] = {
        "encode": (volume, network.encode),
        "decode": (latent, lambda z, memory_gib: network.decode(z, memory_gib=memory_gib)),
    }
    total = (
        torch.cuda.get_device_properties(context.device).total_memory / GIB if context.device.type == "cuda" else 1e9
    )
    for dtype in (torch.bfloat16, torch.float32):
        for name, (x, call) in given.items():
            for memory_gib in (0.05, 0.1) if context.small else (24.0, 8.0, 60.0):
                if memory_gib > PARTS_OF_MEMORY * total:
                    continue
                context.part(
                    f"MAISI {name} {str(dtype).removeprefix('torch.')} memory_gib={memory_gib:g}",
                    lambda x=x, call=call, memory_gib=memory_gib, dtype=dtype: bounded(
                        context, call, x, memory_gib, dtype
                    ),
                )


@torch.inference_mode()
def bounded(
    context: Context, call: Callable[[Tensor, float], object], x: Tensor, memory_gib: float, dtype: torch.dtype
) -> Numbers:
    """Time a call in bounded memory, in which its input counts, after a warm-up with a few of its rows."""
    with torch.autocast(context.device.type, dtype, enabled=dtype == torch.bfloat16):
        call(x[:, :, :8], memory_gib)
        cost = context.cost(lambda: call(x, memory_gib))
    peak_gib = cost.peak_gib + x.nbytes / GIB
    return {**cost.row(), "peak_gib": peak_gib, "bound_kept": peak_gib <= memory_gib}
