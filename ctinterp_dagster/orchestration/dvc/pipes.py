"""What a running stage says of itself through Dagster Pipes: observations of its asset at once, metadata at the end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.pipes.context import build_external_execution_context_data  # open_pipes_session is made of it

from .metadata import live_metadata


@dataclass
class StagePipes:
    """A Pipes session of one stage.

    Attributes:
        variables: the environment that the stage finds it by.
        metadata: what the stage reported with its materialization; filled when the session ends.
    """

    context: dg.AssetExecutionContext
    key: dg.AssetKey
    root: Path
    session: dg.PipesSession
    metadata: dict[str, Any] = field(default_factory=dict)
    shown: int = 0

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment that the stage finds it by."""
        return self.session.get_bootstrap_env_vars()

    def watch(self) -> None:
        """Show what the stage has said since the last call."""
        for message in self.session.get_custom_messages()[self.shown :]:
            self.shown += 1
            self.context.log_event(dg.AssetObservation(self.key, metadata=live_metadata(message, self.root)))


@contextmanager
def stage_pipes(context: dg.AssetExecutionContext, key: dg.AssetKey, root: Path) -> Iterator[StagePipes]:
    """A Pipes session as `open_pipes_session` opens it, without its warning of a stage that says nothing.

    DVC skips a stage that did not change, and one that fails has a message of its own.

    Args:
        context: of the step.
        key: of the asset that the stage makes.
        root: of the project.

    Yields:
        The session, open in the block.
    """
    data = build_external_execution_context_data(context, None)
    handler = dg.PipesMessageHandler(context, dg.PipesTempFileMessageReader())
    with dg.PipesEnvContextInjector().inject_context(data) as injected, handler.handle_messages() as reading:
        session = dg.PipesSession(data, handler, injected, reading, context)
        pipes = StagePipes(context, key, root, session)
        yield pipes
    pipes.watch()
    for result in session.get_reported_results():
        if isinstance(result, dg.MaterializeResult):
            pipes.metadata |= dict(result.metadata or {})
