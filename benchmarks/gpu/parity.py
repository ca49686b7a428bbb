"""Section `parity`: every network, sampler, training step and the whole restoration, on the device against the CPU.

The CPU computes in float32. Errors of outputs are the largest, over the standard deviation of the output (`fp32`: the
device without TF32; `tf32`: with it) or, in bf16, the norm of the difference over the norm. In `--small` the device is
the CPU, so that `fp32` is 0.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.autoencoder_memory import predicted_peaks_gib
from benchmarks.gpu.context import Context, Numbers, float32
from benchmarks.gpu.subjects import autoencoder, denoiser, interpolator, released, scan, smooth, trainings
from ctinterp_dagster.interpolation import Interpolator, Settings
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder

OUTPUT_ERROR, GRADIENT_ERROR, HU_ERROR, PSNR_ERROR_DB = 1e-4, 1e-3, 0.5, 0.02
WINDOW_HU = (-1000.0, 1000.0)
CPU = torch.device("cpu")
Forward = Callable[[torch.device], Tensor]


def parity(context: Context) -> None:
    """Compare everything."""
    for name, forward in networks(small=context.small).items():
        context.part(name, lambda forward=forward: outputs(context, forward), fp32=OUTPUT_ERROR)
    for name in trainings(small=context.small):
        context.part(
            f"training step of {name}",
            lambda name=name: gradients(context, name),
            fp32_loss=OUTPUT_ERROR,
            fp32_gradient=GRADIENT_ERROR,
        )
    context.part("restore", lambda: restoration(context), fp32_hu=HU_ERROR, tiles_hu=HU_ERROR, bf16_db=PSNR_ERROR_DB)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, the same for every device."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def networks(*, small: bool) -> dict[str, Forward]:
    """Every network as a function of the device."""
    side = 16 if small else 96
    depth = 4 if small else 12
    shape, geometry = (1, 4, depth, side, side), torch.tensor([[0.0, 0.1, 1.0]])
    features = noise(1, 14, depth, side, side, seed=1)

    def expected(device: torch.device) -> Tensor:
        return torch.cat(released().expectation.to(device)(features.to(device), geometry.to(device)), dim=1)

    def streamed(device: torch.device) -> Tensor:
        network = released().expectation.to(device)
        memory_gib = network.mean.reach.bytes_per_voxel * features[0, 0].numel() / 2**31
        given = features.to(device), geometry.to(device), memory_gib
        mean = network.expect(*given)
        return torch.cat([mean, network.spread_about(mean, *given)], dim=1)

    def denoised(device: torch.device) -> Tensor:
        shown, t = noise(1, 22, depth, side, side, seed=2), torch.tensor([0.6])
        given = (noise(*shape), shown, geometry, t)
        return released().to(device).denoise(*(part.to(device) for part in given))

    def drawn(device: torch.device) -> Tensor:
        expected = noise(*shape, seed=3).to(device), noise(*shape, seed=4).mul(0.1).to(device)
        given = features.to(device), geometry.to(device), expected
        settings = {"steps": 4, "seed": 0, "sampler": "adams", "memory_gib": None}
        return released().to(device).draw(*given, **settings)  # type: ignore[arg-type] # one dictionary of all

    def latent(device: torch.device) -> Tensor:
        given = noise(*shape), noise(*shape, seed=1), torch.tensor([0.6])
        return denoiser(small=small).to(device)(*(part.to(device) for part in given))

    return {
        "Expectation": expected,
        "Expectation in chunks": streamed,
        "NullSpaceDiffusion.denoise": denoised,
        "NullSpaceDiffusion.draw": drawn,
        "Denoiser": latent,
        **autoencoders(small=small),
    }


def autoencoders(*, small: bool) -> dict[str, Forward]:
    """MAISI's autoencoder, whole and in slabs."""
    size = (128, 16, 16) if small else (96, 64, 64)
    z = noise(1, 4, *(n // 4 for n in size))

    def memory_gib(network: MaisiAutoencoder) -> float:
        return 0.5 * max(predicted_peaks_gib(network, size, math.inf).values())

    def encoded(device: torch.device, *, slabs: bool) -> Tensor:
        network = autoencoder(small=small).to(device)
        posterior = network.encode(smooth(size).to(device), memory_gib(network) if slabs else None)
        return torch.cat(posterior, dim=1)

    def decoded(device: torch.device, *, slabs: bool) -> Tensor:
        network = autoencoder(small=small).to(device)
        return network.decode(z.to(device), memory_gib=memory_gib(network) if slabs else None)

    return {
        "MAISI encode": lambda device: encoded(device, slabs=False),
        "MAISI encode in slabs": lambda device: encoded(device, slabs=True),
        "MAISI decode": lambda device: decoded(device, slabs=False),
        "MAISI decode in slabs": lambda device: decoded(device, slabs=True),
    }


@torch.inference_mode()
def outputs(context: Context, forward: Forward) -> Numbers:
    """How far the device's output is from the CPU's."""
    expected = forward(CPU)
    with float32(tf32=False):
        plain = forward(context.device).cpu()
    with float32(tf32=True):
        rounded = forward(context.device).cpu()
    with torch.autocast(context.device.type, torch.bfloat16):
        half = forward(context.device).float().cpu()
    std = float(expected.std())
    return {
        "fp32": float((plain - expected).abs().max()) / std,
        "tf32": float((rounded - expected).abs().max()) / std,
        "bf16": relative(half, expected),
        "output_std": std,
    }


def relative(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm."""
    return float((actual - expected).norm() / expected.norm())


def gradients(context: Context, name: str) -> Numbers:
    """How far loss and gradient of a training step are from the CPU's."""
    loss, gradient = step(context, name, CPU, torch.float32)
    with float32(tf32=False):
        plain = step(context, name, context.device, torch.float32)
    with float32(tf32=True):
        rounded = step(context, name, context.device, torch.float32)
    half = step(context, name, context.device, torch.bfloat16)
    return {
        "fp32_loss": abs(plain[0] / loss - 1),
        "fp32_gradient": relative(plain[1], gradient),
        "tf32_gradient": relative(rounded[1], gradient),
        "bf16_loss": abs(half[0] / loss - 1),
        "bf16_gradient": relative(half[1], gradient),
    }


def step(context: Context, name: str, device: torch.device, dtype: torch.dtype) -> tuple[float, Tensor]:
    """Loss and gradient of all parameters, on the CPU."""
    objective, batch = trainings(small=context.small)[name]()
    objective = objective.to(device).train()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        loss = objective(*(part.to(device) for part in batch))
    loss.backward()
    parts = [parameter.grad.flatten() for parameter in objective.parameters() if parameter.grad is not None]
    return float(loss.detach()), torch.cat(parts).cpu()


def restoration(context: Context) -> Numbers:
    """The whole way from thick slices to thin ones."""
    taken = scan((6, 32, 32) if context.small else (20, 256, 256))
    settings = Settings(memory_gib=40.0)
    cpu, device = interpolator(CPU), interpolator(context.device)

    truth = torch.from_numpy(taken.known.hu)

    def restored(on: Interpolator, settings: Settings) -> Tensor:
        return torch.from_numpy(on.restore(taken, settings).mean.hu)

    expected = restored(cpu, settings)
    with float32(tf32=False):
        plain = restored(device, settings)
        tiles = restored(device, replace(settings, memory_gib=0.05 if context.small else 0.5))
    with float32(tf32=True):
        rounded = restored(device, settings)
    half = restored(device, replace(settings, mixed_precision="bf16"))
    best = psnr_db(expected, truth)
    return {
        "fp32_hu": float((plain - expected).abs().max()),
        "tiles_hu": float((tiles - expected).abs().max()),
        "tf32_hu": float((rounded - expected).abs().max()),
        "bf16_hu": float((half - expected).abs().max()),
        "tf32_db": abs(psnr_db(rounded, truth) - best),
        "bf16_db": abs(psnr_db(half, truth) - best),
        "psnr_db": best,
    }


def psnr_db(estimate: Tensor, truth: Tensor) -> float:
    """In the window of -1000 to 1000 HU."""
    low, high = WINDOW_HU
    error = estimate.clamp(low, high) - truth.clamp(low, high)
    return 10 * math.log10((high - low) ** 2 / float(error.double().square().mean()))
