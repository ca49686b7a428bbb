"""The `dvc` command line as a Dagster resource."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from .invocation import DvcInvocation
from .project import DvcProject
from .stage import DvcStage
from .translator import DvcTranslator


class DvcCliResource(dg.ConfigurableResource):  # type: ignore[type-arg] # Dagster's parameter is for IO managers
    """The `dvc` command line of one project.

    Attributes:
        project_dir: the project's root.
        grace_s: seconds between SIGTERM and SIGKILL when a run is ended.
        busy_timeout_s: seconds to wait for another DVC process that holds the stage's files.
    """

    project_dir: str
    grace_s: float = 10.0
    busy_timeout_s: float = 3600.0

    def cli(
        self,
        arguments: Sequence[str],
        *,
        context: dg.AssetExecutionContext | dg.OpExecutionContext | None = None,
        translator: DvcTranslator | None = None,
        stages: Sequence[DvcStage] | None = None,
    ) -> DvcInvocation:
        """A command of DVC: `yield from dvc.cli(["repro", "train"], context=context).stream()`.

        If this process ends, or the run is terminated, the processes of the command end too.

        Args:
            arguments: the words after `dvc` at the command line: `["pull"]`, `["exp", "run", "-S", "rate=0.1"]`.
            context: of the op or asset, for its log and its events; none outside Dagster.
            translator: the one that the assets were built with.
            stages: those that the step was asked for; the project is read for them where they are not given.

        Returns:
            The command; it runs when `stream` or `wait` is called.
        """
        return DvcInvocation(
            arguments=arguments,
            project=DvcProject(Path(self.project_dir)),
            grace_s=self.grace_s,
            busy_timeout_s=self.busy_timeout_s,
            context=context,
            translator=translator or DvcTranslator(),
            stages=stages,
        )
