"""Weights from files that others wrote: read without running them, and refused unless they fit."""

import pickle
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ctinterp_dagster.errors import CheckpointError, MissingInputError
from ctinterp_dagster.records import whole_file

WRAPPERS = ("unet_state_dict", "autoencoder_state_dict", "model_state_dict", "state_dict", "autoencoder", "model")
NAMES_SHOWN = 3

# What torch's reader raises on files that are truncated, of another format, or that would run code.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, OverflowError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class LoadStatistics:
    """What became of the tensors of a weights file.

    Attributes:
        loaded: tensors of the module that the file set.
        total: tensors of the module.
        missing: names that the module has and the file lacks.
        unexpected: names that the file has and the module lacks.
    """

    loaded: int
    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def _as_mapping(content: Any) -> Mapping[Any, Any]:
    if not isinstance(content, Mapping):
        raise TypeError(f"a {type(content).__name__} where named tensors were expected")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, by name, on the CPU. Runs nothing that the file contains.

    An outer dictionary (`state_dict`, `unet_state_dict`, `model`, ...) is opened.

    Args:
        path: a safetensors or torch file.

    Returns:
        Tensors by name, as they are stored.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is truncated, of another format, holds other things than tensors, or would run code.
    """
    content = read_content(path, _unwrapped)
    others = sorted(str(name) for name, value in content.items() if not (isinstance(name, str) and _is_real(value)))
    if others or not content:
        what = f"holds {_listed(others)}, which are not tensors of real numbers" if others else "holds no tensors"
        raise CheckpointError(f"{path} {what}: expected named tensors, or one of {', '.join(WRAPPERS)} around them")
    return dict(content)


def read_content(path: Path, open_it: Callable[[Any], Mapping[Any, Any]] = _as_mapping) -> Mapping[Any, Any]:
    """All that a safetensors or torch file holds, by name. Runs nothing that the file contains.

    Args:
        path: the file.
        open_it: what to do with its content.

    Returns:
        What `open_it` makes of the content.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is truncated, of another format, or would run code.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} is not a file: expected weights as .safetensors, or .pt written by torch.save")
    try:
        return open_it(_content(path))
    except (SafetensorError, *UNREADABLE) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read safely as weights ({reason:.200}): "
            f"expected a whole .safetensors or torch.save file of tensors; download it again"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for files of other formats, and for files that cannot be read."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return {}


def save_weights(module: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write the tensors of a module as safetensors, in one step.

    Args:
        module: whose tensors are written, contiguous and from the CPU.
        path: of the file.
        metadata: words for its header.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def load_weights(module: nn.Module, path: Path, *, strict: bool) -> LoadStatistics:
    """Set the tensors of a module from a file.

    Args:
        module: changed only if the file is accepted; one on the meta device is then given memory on the CPU.
        path: safetensors, or torch.save of tensors.
        strict: refuse a file with missing or unexpected tensors. Tensors of the wrong shape, or with numbers that are
            not finite, and files without one tensor of the module are always refused.

    Returns:
        How many tensors were set, and the names of those that are missing or unexpected.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: the file is refused; the message says how many tensors are wrong, and names the first.
    """
    tensors, own = read_weights(path), module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    known = sorted(own.keys() & tensors.keys())
    shapes = [f"{n} {_size(tensors[n])} for {_size(own[n])}" for n in known if tensors[n].shape != own[n].shape]
    infinite = [name for name in known if not tensors[name].isfinite().all()]
    faults = {"with another shape": shapes, "not finite": infinite}
    if strict or not known:
        faults = {"missing": missing, "unexpected": unexpected} | faults
    wrong = [f"{len(names)} {fault} ({_listed(names)})" for fault, names in faults.items() if names]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the {len(own)} tensors of {type(module).__name__}: {'; '.join(wrong)}; "
            f"give weights of this architecture and width"
        )
    if any(tensor.is_meta for tensor in own.values()):
        module.to_empty(device="cpu")
    module.load_state_dict({name: tensors[name] for name in known}, strict=False)
    return LoadStatistics(len(known), len(own), tuple(missing), tuple(unexpected))


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on pickle protocols: what cannot be read is an error below
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    for _ in WRAPPERS:  # bounded: a hostile file may contain itself
        inner = [content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content]
        if not inner:
            break
        content = inner[0]
    return _as_mapping(content)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
