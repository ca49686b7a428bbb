"""What the trainings of a preset need on a device: memory, operations, days; computed, not run.

    python benchmarks/training_cost.py gpu --tflops 100

Each network is walked through once on torch's meta device, which has shapes and no numbers. What it keeps for the way
back is counted as it is kept, at 2 bytes a number (bf16), the operations by torch's counter. For one process then

    memory  = parameters x 20 bytes + batch x (kept + the largest block's own)
    seconds = steps x accumulation x batch x operations forward x (3, or 4 with gradient checkpointing) / rate

20 bytes are weights, gradient, AdamW's two moments and the running average in float32. The rate is what the device
reaches, not what its data sheet says. Buffers of the libraries and the framework (1 to 2 GiB on a GPU) come on top.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import click
import torch
from ruamel.yaml import YAML
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ctinterp_dagster.cli.preset import PRESETS, override
from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.model.autoencoder import LATENT_STRIDE, MaisiAutoencoder
from ctinterp_dagster.model.blocks import ResidualUnit
from ctinterp_dagster.model.sampler import USUAL_STEPS
from ctinterp_dagster.nullspace.basis import FEATURES, GEOMETRY, MODES
from ctinterp_dagster.nullspace.diffusion import TIMES, narrower
from ctinterp_dagster.nullspace.unet import SliceUNet
from ctinterp_dagster.params import Optimisation, Params
from ctinterp_dagster.training.recompute import recomputed

GIB = 1 << 30
STATE_BYTES = 20
KEPT_BYTES = 2  # a number


@dataclass(frozen=True)
class Pass:
    """One network in a training: `learns` has a way back; `given` are the shapes of one sample."""

    network: nn.Module
    given: tuple[tuple[int, ...], ...]
    learns: bool = True


class Training(NamedTuple):
    """A training of a preset: its name, section, batch size and networks."""

    name: str
    section: Optimisation
    batch_size: int
    passes: list[Pass]


def trainings(params: Params) -> Iterator[Training]:
    """Every training of a preset."""
    ae, ex, tr, la = params.autoencoder, params.expect, params.train, params.latent
    whole = MaisiAutoencoder(ae.channels, norm_groups=1)
    latent = (1, whole.latent_channels, *(n // LATENT_STRIDE for n in ae.patch_zyx))
    passes = [Pass(whole.encoder, ((1, 1, *ae.patch_zyx),)), Pass(whole.decoder, (latent,))]
    yield Training("autoencoder", ae, ae.batch_size, passes)
    mean = SliceUNet(FEATURES, MODES, ex.channels, ex.blocks, GEOMETRY)
    spread = SliceUNet(FEATURES + MODES, MODES, narrower(ex.channels), 1, GEOMETRY)

    def seen(network: SliceUNet, channels: int, slab: tuple[int, ...], told: int, *, learns: bool = True) -> Pass:
        return Pass(network, ((1, channels, *slab), (1, told)), learns)

    passes = [seen(mean, FEATURES, ex.slab_zyx, GEOMETRY), seen(spread, FEATURES + MODES, ex.slab_zyx, GEOMETRY)]
    yield Training("expect", ex, ex.batch_size, passes)
    shown = FEATURES + 3 * MODES
    denoiser = SliceUNet(shown, MODES, tr.channels, ex.blocks, GEOMETRY + TIMES)
    passes = [
        seen(denoiser, shown, ex.slab_zyx, GEOMETRY + TIMES),
        seen(mean, FEATURES, ex.slab_zyx, GEOMETRY, learns=False),
        seen(spread, FEATURES + MODES, ex.slab_zyx, GEOMETRY, learns=False),
    ]
    yield Training("train", tr, ex.batch_size, passes)
    teacher, *expected = (replace(part, learns=False) for part in passes)
    one_step = seen(SliceUNet(shown, MODES, tr.channels, ex.blocks, GEOMETRY), shown, ex.slab_zyx, GEOMETRY)
    yield Training(
        "one_step",
        tr.model_copy(update=tr.one_step.model_dump()),
        ex.batch_size,
        [one_step, *[teacher] * USUAL_STEPS, *expected],
    )
    noisy = (1, whole.latent_channels, *la.patch_zyx)
    network = Denoiser(whole.latent_channels, whole.latent_channels, la.channels, la.blocks)
    yield Training("latent", la, la.batch_size, [Pass(network, (noisy, noisy, (1,)))])


def walk(network: nn.Module, given: tuple[Tensor, ...], *, again: bool) -> tuple[int, int]:
    """Numbers kept for the way back, and operations of the way there."""
    weights = {id(parameter) for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes() // tensor.element_size()  # noqa: SLF001
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with recomputed(network, asked=again), hooks, FlopCounterMode(display=False) as counter:
        network(*given)
    return sum(kept.values()), counter.get_total_flops()


def largest_block(network: nn.Module, given: tuple[Tensor, ...]) -> int:
    """Numbers that the dearest residual block keeps when it is computed again."""
    inputs: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    blocks = [module for module in network.modules() if isinstance(module, ResidualUnit)]
    hooks = [block.register_forward_hook(lambda block, args, _: inputs.append((block, args))) for block in blocks]
    network(*given)
    for hook in hooks:
        hook.remove()
    return max(walk(block, args, again=False)[0] for block, args in inputs)


@click.command
@click.argument("preset", type=click.Choice(sorted(path.stem for path in PRESETS.glob("*.yaml"))))
@click.option("--tflops", default=100.0, help="what the device reaches in bf16, TFLOP/s")
def main(preset: str, tflops: float) -> None:
    """Print a table in Markdown for PRESET; run in the project's root."""
    yaml = YAML(typ="safe")
    values = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    override(values, yaml.load((PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")))
    print("| training | parameters M | kept a sample GiB | again GiB | memory GiB | GFLOP forward a sample | days |")
    print("|---|---|---|---|---|---|---|")
    with torch.device("meta"):
        params = Params.model_validate(values)
        for name, section, batch_size, passes in trainings(params):
            again = params.loop.gradient_checkpointing
            parameters = kept = inside = 0
            work = forward = 0.0
            for part in passes:
                given = tuple(torch.empty(shape) for shape in part.given)
                numbers, operations = walk(part.network, given, again=again and part.learns)
                forward += operations
                work += operations * ((4 if again else 3) if part.learns else 1)
                if part.learns:
                    parameters += sum(p.numel() for p in part.network.parameters())
                    kept += numbers
                    inside = max(inside, largest_block(part.network, given) if again else 0)
            memory = parameters * STATE_BYTES + batch_size * (kept + inside) * KEPT_BYTES
            days = section.steps * params.loop.accumulation * batch_size * work / (tflops * 1e12) / 86400
            print(
                f"| {name} | {parameters / 1e6:.1f} | {kept * KEPT_BYTES / GIB:.2f} | {inside * KEPT_BYTES / GIB:.2f} "
                f"| {memory / GIB:.1f} | {forward / 1e9:.0f} | {days:.2f} |"
            )


if __name__ == "__main__":
    main()
