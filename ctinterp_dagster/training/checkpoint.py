"""All that changes during a training, in one file that does not depend on how processes share it."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from ctinterp_dagster.errors import CheckpointError, TrainingError
from ctinterp_dagster.model.ema import Ema
from ctinterp_dagster.records import whole_file


@dataclass(frozen=True)
class TrainingState:
    """What changes; each process may hold a part of every tensor (FSDP), of which files have the whole.

    Attributes:
        accelerator: of the run.
        objective: whose weights are trained.
        optimizer: Accelerate's.
        ema: of the weights.
    """

    accelerator: Accelerator
    objective: nn.Module
    optimizer: Any
    ema: Ema

    def save(self, path: Path, identity: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the file, in the first process; all of them call this, for each has its part to give.

        Args:
            path: of the file.
            identity: of the training, which `load` asks for.
            history: of its steps.
        """
        scaler = self.accelerator.scaler
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, moments = get_state_dict(self.objective, self.optimizer.optimizer, options=options)
        averaged = {name: whole(tensor) for name, tensor in self.ema.weights.items()}
        record = {
            "identity": identity,
            "objective": weights,
            "optimizer": moments,
            "ema": {**self.ema.state_dict(), "weights": averaged},
            "scaler": scaler.state_dict() if scaler else None,
            "history": list(history),
        }
        if self.accelerator.is_main_process:
            with whole_file(path) as partial, partial.open("wb") as handle:
                torch.save(record, handle)

    def load(self, path: Path, identity: str) -> list[dict[str, Any]]:
        """Go on from a file.

        Args:
            path: a file that `save` wrote.
            identity: of this run, which that of the file must be.

        Returns:
            The history: a record a step.

        Raises:
            CheckpointError: the file cannot be read.
            TrainingError: it is of another run.
        """
        record = _read(path)
        if record.get("identity") != identity:
            raise TrainingError(
                f"{path.name} is the checkpoint of another run (other data, settings, network or number of processes): "
                "remove it to start afresh"
            )
        set_state_dict(
            self.objective,
            self.optimizer.optimizer,
            model_state_dict=record["objective"],
            optim_state_dict=record["optimizer"],
            options=StateDictOptions(full_state_dict=True),
        )
        averaged = record["ema"]["weights"]
        parts = {name: _part(averaged[name], like) for name, like in self.ema.weights.items()}
        self.ema.load_state_dict({**record["ema"], "weights": parts})
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(record["scaler"])
        return list(record["history"])


def whole_weights(module: nn.Module) -> dict[str, Any]:
    """The whole tensors of a module by name, of which each process may hold a part; all processes call this."""
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True))


def whole(tensor: Tensor) -> Tensor:
    """A tensor, whole on its device, of which each process may hold a part; all processes call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _part(full: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is not a training checkpoint ({type(error).__name__}): remove it to start afresh"
        ) from error
    return record if isinstance(record, Mapping) else {}
