"""A running mean of a network's weights, which is what gets validated and released."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ctinterp_dagster.errors import CheckpointError


class Ema:
    """Exponential moving average of a module's parameters.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the random start is forgotten quickly. It gives
    the bits of torch's AveragedModel with this decay, which copies the module, sharded or not, and reads a counter from
    the device at every update: the device would be waited for.

    Source: Karras et al. 2022 (EDM), appendix F; warm-up as in tf.train.ExponentialMovingAverage and timm.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's weights; `decay` is in [0, 1), 0 follows the weights without memory."""
        self.decay = decay
        self.updates = 0
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the mean towards the module's weights, once an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own: list[Tensor] = [parameter for _, parameter in module.named_parameters()]
        torch._foreach_lerp_(list(self.weights.values()), own, 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the mean."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])

    @contextmanager
    def swapped_in(self, module: nn.Module) -> Iterator[None]:
        """Let the module compute with the mean inside a `with` block, and have its own weights back after it."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(own[name])

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Everything that a resumed run needs: `weights`, of the shapes of the network's, and the count of updates."""
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict[str, int | dict[str, Tensor]]) -> None:
        """Continue from a state that `state_dict` gave, with weights of the same shapes.

        Args:
            state: the number of updates, and the weights by name.

        Raises:
            CheckpointError: the state is of another network.
        """
        weights, updates = state["weights"], state["updates"]
        if not isinstance(weights, dict) or not isinstance(updates, int) or weights.keys() != self.weights.keys():
            raise CheckpointError("the averaged weights are those of another network: remove the checkpoint")
        for name, value in weights.items():
            self.weights[name].copy_(value)
        self.updates = updates
