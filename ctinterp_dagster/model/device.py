"""The device that computes, and what to tell a user whose GPU is not there or too small."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ctinterp_dagster.errors import CtinterpError, ParamsError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Args:
        name: `auto`, or one of torch such as `cpu` or `cuda`.

    Returns:
        A device of torch.

    Raises:
        ParamsError: CUDA is asked for and not there, or torch knows no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ParamsError(f"device cuda is not there: {why_no_gpu()}, or use device cpu")
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ParamsError(f"the device is {name!r}: expected auto, cpu or cuda") from error


def why_no_gpu() -> str:
    """Why torch finds no GPU and what to do, part of a line."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install its build for CUDA (pytorch.org)"
    try:
        torch.cuda.init()
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "too old" in reason:
            return (
                f"the driver is too old for CUDA {torch.version.cuda}; update it (nvidia-smi shows its version), or "
                "install torch's build for an older CUDA"
            )
        if "no NVIDIA driver" in reason:
            return "there is no NVIDIA driver; install it, and start a container with the GPU (--gpus all)"
        return f"{reason}; look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    return "the driver shows no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES"


@contextmanager
def out_of_memory(error: Callable[[str], CtinterpError], advice: str) -> Iterator[None]:
    """Say on one line what to change, if the memory of the GPU does not suffice for the block.

    Args:
        error: what is raised.
        advice: what to change.
    """
    try:
        yield
    except torch.OutOfMemoryError as problem:
        sentences = str(problem).partition("\n")[0].split(". ")
        raise error(f"the GPU is out of memory: {advice} ({'. '.join(sentences[1:3])})") from problem
