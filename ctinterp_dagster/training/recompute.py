"""How residual blocks are run in training: computed again on the way back, or compiled."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch._dynamo import config
from torch.utils.checkpoint import checkpoint

from ctinterp_dagster.model.blocks import ResidualUnit

SHAPES = 64  # of blocks that are compiled before torch gives up on them


@contextmanager
def recomputed(network: nn.Module, *, asked: bool) -> Iterator[None]:
    """Within it, the residual blocks of a network keep nothing but their inputs for the way back.

    Gradients are the same to the bit: no block draws random numbers.

    Args:
        network: its blocks are changed within.
        asked: False changes nothing.

    Source: Chen et al. 2016 (arXiv 1604.06174), section 3.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResidualUnit)] if asked else []
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def compiled(network: nn.Module, *, asked: bool) -> Iterator[None]:
    """Within it, torch compiles the residual blocks of a network: norms, activations and sums become one kernel each.

    Blocks of one shape share what is compiled, so that it takes seconds.
    """
    limit, config.recompile_limit = config.recompile_limit, SHAPES
    blocks = [module for module in network.modules() if isinstance(module, ResidualUnit)] if asked else []
    for block in blocks:
        block.compile(dynamic=False)
    try:
        yield
    finally:
        config.recompile_limit = limit
        for block in blocks:
            block._compiled_call_impl = None  # noqa: SLF001 (what nn.Module.compile sets; there is no way back)
