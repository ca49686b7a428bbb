"""One safetensors file a model: its tensors and, as metadata, its kind and configuration."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ctinterp_dagster.errors import CheckpointError, MissingInputError
from ctinterp_dagster.records import whole_file

RENAMED = {"enter": "conv_in", "leave": "conv_out", "listen": "embed"}  # parts of names that releases up to 0.6 wrote
Config = TypeVar("Config")


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        path: the file.
        kind: of model, such as `latent_diffusion`.
        config: values of JSON by name, not checked: `config_as` does.
        tensors: by name, float32 on the CPU.
    """

    path: Path
    kind: str
    config: Any
    tensors: dict[str, Tensor]

    def config_as(self, kind: type[Config]) -> Config:
        """The configuration, checked.

        Args:
            kind: the dataclass of the configuration.

        Returns:
            An instance of `kind`.

        Raises:
            CheckpointError: it is one of another version.
        """
        from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 (a training needs no pydantic)

        try:
            return TypeAdapter(kind).validate_python(self.config)
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise CheckpointError(
                f"{self.path} has a configuration of another version ({wrong}): take a model of this version"
            ) from error

    def fill(self, module: nn.Module) -> None:
        """Set the tensors of a module that was built from the configuration.

        Args:
            module: changed in place.

        Raises:
            CheckpointError: names or shapes differ, or a number is not finite.
        """
        self.must_fit(module)
        module.load_state_dict(self.tensors)

    def must_fit(self, module: nn.Module) -> None:
        """Refuse a file whose tensors are not those of a module.

        Args:
            module: built from the configuration, on any device.

        Raises:
            CheckpointError: names or shapes differ, or a number is not finite.
        """
        own = module.state_dict()
        wrong = sorted(own.keys() ^ self.tensors.keys())
        wrong += [n for n in own if n in self.tensors and own[n].shape != self.tensors[n].shape]
        wrong += [n for n, tensor in self.tensors.items() if not tensor.isfinite().all()]
        if wrong:
            raise CheckpointError(
                f"{self.path} does not fit its own configuration: {len(wrong)} tensors are missing, unknown, "
                f"misshapen or not finite ({', '.join(wrong[:3])}): train it again"
            )


def save_model(module: nn.Module, kind: str, config: Any, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model.

    Args:
        module: its tensors are stored.
        kind: of model; `read_model` gives it back.
        config: a dataclass, all that is needed to rebuild the module.
        path: the file.
        dtype: how the numbers are stored; float16 halves the file, and reading gives float32 again.
    """
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in module.state_dict().items()}
    metadata = json.dumps({"kind": kind, "config": asdict(config)}, sort_keys=True)
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"ctinterp": metadata})  # one key: the file's order of keys is random


class StoredModel(nn.Module):
    """A module that one file holds with its configuration.

    Attributes:
        kind: the file's word for it.
        configuration: the dataclass of its configuration, the one argument that builds it.
        config: with which it was built.
    """

    kind: ClassVar[str]
    configuration: ClassVar[type[Any]]
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return next(self.parameters()).device

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the tensors, the kind and the configuration as one safetensors file, which `load` reads.

        Args:
            path: of the file; its folder is made.
            dtype: how the numbers are stored; float16 halves the file, and reading gives float32 again.
        """
        save_model(self, self.kind, self.config, path, dtype)

    @classmethod
    def of(cls, file: ModelFile) -> Self:
        """Build the model of a file, for inference; no memory is spent on what the configuration alone claims.

        Args:
            file: whose configuration and tensors are to be this class's.

        Returns:
            The model on the CPU, in evaluation mode.

        Raises:
            CheckpointError: the file does not fit.
        """
        config = file.config_as(cls.configuration)
        try:
            with torch.device("meta"):
                claimed = cls(config)
        except (RuntimeError, TypeError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{file.path} has a configuration of no possible network ({reason}): train it again"
            ) from error
        file.must_fit(claimed)
        model = cls(config)
        file.fill(model)
        return model.eval()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: a safetensors file.

        Returns:
            The model on the CPU, in evaluation mode.

        Raises:
            MissingInputError: the file is not there.
            CheckpointError: it is not such a model, or is truncated.
        """
        return cls.of(read_model(path))


def current_name(name: str) -> str:
    """The name of a tensor that a release up to 0.6 wrote under another."""
    return ".".join(RENAMED.get(part, part) for part in name.split("."))


def read_model(path: Path) -> ModelFile:
    """Read what `save_model` wrote.

    Args:
        path: a safetensors file.

    Returns:
        Kind and configuration, neither checked, and the tensors by name, float32 on the CPU.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is not a ctinterp model, or is truncated.
    """
    if not path.is_file():
        problem = "is a folder and no model file" if path.is_dir() else "is missing"
        raise MissingInputError(f"{path} {problem}: train a model (`dvc repro`) or leave out --model")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {current_name(name): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): get it again") from error
    about = json.loads(metadata.get("ctinterp", "{}"))
    if about.keys() != {"kind", "config"}:
        raise CheckpointError(f"{path} has no ctinterp configuration: expected a model that a stage wrote")
    return ModelFile(path, about["kind"], about["config"], tensors)
