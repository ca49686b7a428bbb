"""The device of a training: found or refused, and made to repeat its bits or to be fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from ctinterp_dagster.errors import TrainingError


def accelerator_for(
    device: Literal["auto", "cpu", "cuda"], mixed_precision: Literal["no", "bf16", "fp16"], accumulation: int
) -> Accelerator:
    """Accelerate's view of the device and of the processes that train together.

    Args:
        device: that is asked for; auto is a GPU where there is one.
        mixed_precision: of autocast.
        accumulation: batches summed before a step.

    Returns:
        The accelerator; on the CPU where `device` is auto and there is no GPU.

    Raises:
        TrainingError: there is no such device, or it cannot compute so.
    """
    cpu = device == "cpu" or (device == "auto" and not torch.accelerator.is_available())
    AcceleratorState._reset_state()  # noqa: SLF001 (or a process could train in one precision only)
    if mixed_precision == "fp16" and cpu:
        raise TrainingError("mixed_precision fp16 needs a GPU, the device is cpu: use bf16 or no")
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision, gradient_accumulation_steps=accumulation)
    if device not in ("auto", accelerator.device.type):
        raise TrainingError(f"device {device} is not there, found {accelerator.device.type}: use auto or cpu")
    if accelerator.is_fsdp2:  # autocast alone rounds, as without FSDP: HU do not survive bf16
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    return accelerator


@contextmanager
def repeatable(objective: nn.Module, *, gpu: bool) -> Iterator[None]:
    """On a CPU let torch use algorithms that repeat their bits, or stop; on a GPU let it use the fastest."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(mode=not gpu)
    torch.backends.cudnn.benchmark = gpu
    convolutions = [module for module in objective.modules() if isinstance(module, nn.Conv3d)]
    guards = [module.register_forward_hook(_refuse_depth_two) for module in convolutions if not gpu]
    try:
        yield
    finally:
        for guard in guards:
            guard.remove()
        torch.use_deterministic_algorithms(mode=before[0])
        torch.backends.cudnn.benchmark = before[1]


def channels_last(objective: nn.Module) -> None:
    """Keep the weights of convolutions as a GPU multiplies them, or it would reorder them at every step."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in objective.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


@contextmanager
def memory_told(batch_size: int) -> Iterator[None]:
    """Say what to do where a GPU's memory is too small.

    Args:
        batch_size: samples a process draws at once.

    Raises:
        TrainingError: it is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is too small for batch_size {batch_size}: lower it and raise accumulation, or "
            "set gradient_checkpointing; the last checkpoint is as it was"
        ) from error


def _refuse_depth_two(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Stop where torch's bf16 convolutions on a CPU give weight gradients of uninitialised memory.

    Measured with torch 2.13 on x86: kernel 3, padding 1, depth 2 in and out; NaN in half of all trials, and never at
    another depth, kernel, or in float32.

    Args:
        module: any layer.
        inputs: of the layer, (b, channel, z, y, x) of a convolution.
        output: of the layer.

    Raises:
        TrainingError: such a convolution is met.
    """
    wide = isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3
    unsafe = output.dtype == torch.bfloat16 and output.device.type == "cpu"
    if wide and unsafe and inputs[0].shape[2] == output.shape[2] == 2:
        raise TrainingError(
            "a convolution on 2 slices would get wrong gradients in bf16 on a CPU: choose patch_zyx so that halving "
            "its z at each level never leaves 2 (12, 16 or more), or mixed_precision no"
        )
