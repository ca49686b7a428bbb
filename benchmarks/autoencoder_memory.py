"""Peak memory of encode and decode, measured against the bound and the prediction; run by hand.

    python benchmarks/autoencoder_memory.py --case encode 64 256 256 2.0 --case decode 64 256 256 2.0
    python benchmarks/autoencoder_memory.py --narrower 8 --case encode 256 512 512 1.5 --case decode 256 512 512 1.5

MAISI's width, or that divided by `--narrower`: activations then take that share of the memory, so that a size which
would take hours at full width is shown with the same slabs, passes and stored layers.

Each case runs in a process of its own. Measured is the growth of the resident set from just before the call (weights
loaded, kernels warm, input made) to its peak; Linux only.
"""

import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

import click
import torch

from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.bounded_memory import GIB, Budget, predicted_peak_gib
from ctinterp_dagster.model.autoencoder.network import LATENT_STRIDE


def predicted_peaks_gib(model: MaisiAutoencoder, size_zyx: tuple[int, int, int], memory_gib: float) -> dict[str, float]:
    """The memory of activations that `encode` and `decode` take for one volume; computes nothing.

    Args:
        model: the autoencoder.
        size_zyx: of the volume, in voxels.
        memory_gib: what may be taken.

    Returns:
        GiB by method, weights and runtime left out.

    Raises:
        ParamsError: the memory does not suffice.
    """
    latent = [-(-size // LATENT_STRIDE) for size in size_zyx]
    volume = torch.empty(1, 1, *(LATENT_STRIDE * size for size in latent), device="meta")
    z = torch.empty(1, model.latent_channels, *latent, device="meta")
    return {
        "encode": predicted_peak_gib(model.encoder, volume, Budget(memory_gib)),
        "decode": predicted_peak_gib(model.decoder, z, Budget(memory_gib)),
    }


def resident(field: str) -> float:
    """VmRSS or VmHWM (its peak) of this process in GiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / (GIB >> 10)


def autoencoder(narrower: int) -> MaisiAutoencoder:
    """Of MAISI's width divided by `narrower`, with random weights."""
    torch.manual_seed(0)
    return MaisiAutoencoder(
        channels=(64 // narrower, 128 // narrower, 256 // narrower), norm_groups=32 // narrower
    ).eval()


def measure(stage: str, size_zyx: tuple[int, int, int], memory_gib: float, narrower: int, results: Any) -> None:
    """Run one case and put (peak GiB, CPU seconds, wall seconds)."""
    model = autoencoder(narrower)
    small = torch.rand(1, 1, 16, 16, 16)
    model.decode(model.encode(small).mean)
    given = torch.rand(1, 1, *size_zyx) if stage == "encode" else torch.randn(1, 4, *(n // 4 for n in size_zyx))
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present
    before, cpu, wall = resident("VmRSS"), time.process_time(), time.perf_counter()
    (model.encode if stage == "encode" else model.decode)(given, memory_gib=memory_gib)
    results.put((resident("VmHWM") - before, time.process_time() - cpu, time.perf_counter() - wall))


@click.command
@click.option("--case", "cases", type=(click.Choice(["encode", "decode"]), int, int, int, float), multiple=True)
@click.option("--narrower", default=1, help="divisor of MAISI's width: 1, 2, 4, 8")
def main(cases: list[tuple[str, int, int, int, float]], narrower: int) -> None:
    """Measure the cases, each STAGE Z Y X MEMORY_GIB, and print a table in Markdown."""
    with torch.device("meta"):
        model = autoencoder(narrower)
    context = multiprocessing.get_context("spawn")
    print("| | size | allowed GiB | predicted GiB | measured GiB | measured / predicted | CPU s | wall s |")
    print("|---|---|---|---|---|---|---|---|")
    for stage, *size, memory_gib in cases:
        size_zyx = (size[0], size[1], size[2])
        predicted = predicted_peaks_gib(model, size_zyx, memory_gib)[stage]
        results = context.Queue()
        process = context.Process(target=measure, args=(stage, size_zyx, memory_gib, narrower, results))
        process.start()
        peak, cpu, wall = results.get(timeout=7200)
        process.join()
        print(
            f"| {stage} | {'x'.join(map(str, size))} | {memory_gib:g} | {predicted:.3f} | {peak:.3f} "
            f"| {peak / predicted:.2f} | {cpu:.0f} | {wall:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
