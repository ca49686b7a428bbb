"""MAISI's autoencoder here against MONAI's, same weights and input, in one process, taking turns; run by hand.

    OMP_NUM_THREADS=2 python benchmarks/autoencoder.py --size 64 64 64 --repeats 5

Prints a table in Markdown: medians of CPU and wall seconds, speed-up in CPU time, GFLOP/s (of the direct convolutions'
exact cost) and the relative error. docs/performance.md holds what it gave.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from torch import Tensor

from ctinterp_dagster.model.autoencoder import MaisiAutoencoder

MFLOP_PER_VOXEL = {"encode": 1.514, "decode": 3.236}  # counted: 2 operations a multiplication


@dataclass(frozen=True)
class Seconds:
    """Medians over the repeats."""

    cpu: float
    wall: float


def monai_autoencoder() -> AutoencoderKlMaisi:
    """MONAI's network at MAISI's width with random weights, undivided (`num_splits` 1), as it is fastest on a CPU."""
    torch.manual_seed(0)
    return AutoencoderKlMaisi(
        spatial_dims=3, in_channels=1, out_channels=1, num_res_blocks=(2, 2, 2), num_channels=(64, 128, 256),
        attention_levels=(False, False, False), latent_channels=4, norm_num_groups=32, norm_eps=1e-6,
        num_splits=1, save_mem=False,
    ).eval()  # fmt: skip


def in_turns(contestants: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, Seconds]:
    """Time each contestant in every round, so that what else the machine does meets all of them alike."""
    for run in contestants.values():
        run()
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    wall: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            started = time.process_time(), time.perf_counter()
            run()
            cpu[name].append(time.process_time() - started[0])
            wall[name].append(time.perf_counter() - started[1])
    return {name: Seconds(statistics.median(cpu[name]), statistics.median(wall[name])) for name in contestants}


def peaks(repeats: int) -> dict[str, float]:
    """What this machine reaches at best, GFLOP per CPU second: a matrix product, and a direct convolution."""
    a = torch.randn(2048, 2048)
    x, w = torch.randn(1, 128, 32, 32, 32), torch.randn(128, 128, 3, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    half = a.bfloat16()
    flop = {"sgemm": 2 * 2048**3, "bf16 gemm": 2 * 2048**3, "direct conv3d": 54 * 128**2 * 32**3}
    seconds = in_turns(
        {
            "sgemm": lambda: a @ a,
            "bf16 gemm": lambda: half @ half,
            "direct conv3d": lambda: torch.conv3d(x, w, padding=1),
        },
        repeats,
    )
    return {name: flop[name] / seconds[name].cpu / 1e9 for name in flop}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm."""
    return float((actual.float() - expected).norm() / expected.norm())


@click.command
@click.option("--size", "sizes", nargs=3, type=int, multiple=True, default=[(64, 64, 64)], help="voxels z y x")
@click.option("--repeats", default=5, help="rounds, of which the median is taken")
@click.option("--bf16", is_flag=True, help="time bfloat16 autocast too")
@torch.inference_mode()
def main(sizes: list[tuple[int, int, int]], repeats: int, *, bf16: bool) -> None:
    """Compare, and print the table."""
    theirs = monai_autoencoder()
    ours = MaisiAutoencoder().eval()
    ours.load_state_dict(theirs.state_dict())
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, GFLOP per CPU second at best:")
    print(", ".join(f"{name} {rate:.0f}" for name, rate in peaks(repeats).items()))
    print("\n| size | | MONAI CPU s | wall s | here CPU s | wall s | times faster (CPU) | GFLOP per CPU s | error |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size in sizes:
        x = torch.rand(1, 1, *size)
        z = theirs.encode(x)[0]
        runs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
            "encode": (lambda x=x: theirs.encode(x)[0], lambda x=x: ours.encode(x).mean),  # type: ignore[misc]
            "decode": (lambda z=z: theirs.decode(z), lambda z=z: ours.decode(z)),  # type: ignore[misc]
        }
        for name, (their_run, our_run) in runs.items():
            expected = their_run()
            contestants = {"monai": their_run, "float32": our_run}
            if bf16:
                contestants["bf16"] = in_bf16(our_run)
            seconds = in_turns(contestants, repeats)
            for kind in [k for k in contestants if k != "monai"]:
                mine, base = seconds[kind], seconds["monai"]
                rate = MFLOP_PER_VOXEL[name] * x.numel() / 1e3 / mine.cpu
                print(
                    f"| {'x'.join(map(str, size))} | {name} {kind} | {base.cpu:.2f} | {base.wall:.2f} | {mine.cpu:.2f} "
                    f"| {mine.wall:.2f} | {base.cpu / mine.cpu:.2f} | {rate:.0f} "
                    f"| {relative_error(contestants[kind](), expected):.1e} |"
                )


def in_bf16(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same run under autocast."""

    def autocast() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return autocast


if __name__ == "__main__":
    main()
