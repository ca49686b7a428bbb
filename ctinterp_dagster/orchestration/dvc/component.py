"""A DVC project as a Dagster component, configured in YAML as dagster-dbt's `DbtProjectComponent` is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components import ComponentLoadContext, Scaffolder, ScaffoldRequest, scaffold_component, scaffold_with
from dagster.components.resolved.core_models import OpSpec
from dagster.components.utils.defs_state import DefsStateConfig
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType
from pydantic import BaseModel, Field

from .assets import build_dvc_assets, repro
from .project import DvcProject
from .remote import RemoteGitDvcProject
from .resource import DvcCliResource
from .sensor import build_dvc_sensor
from .stage import DvcProjectError, DvcStage
from .state import read_state, write_state
from .translator import DvcTranslator


@dataclass(frozen=True)
class _OfComponent(DvcTranslator):
    """The default translation, then what the YAML changes in it, then `get_asset_spec` of the component."""

    component: "DvcProjectComponent"

    def get_asset_key(self, stage: DvcStage) -> dg.AssetKey:
        """The key that the YAML gives."""
        key = super().get_asset_key(stage)
        translation = self.component.translation
        return translation(dg.AssetSpec(key), stage).key if translation else key

    def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
        """The spec that the component gives."""
        return self.component.get_asset_spec(stage, stages)


class DvcScaffoldParams(BaseModel):
    """What `dg scaffold defs` asks for."""

    project: str = Field(default=".", description="The DVC project, relative to the new component's folder.")


class DvcProjectScaffolder(Scaffolder[DvcScaffoldParams]):
    """Writes a `defs.yaml` that loads the project: `dg scaffold defs dagster_dvc.DvcProjectComponent models ...`."""

    @classmethod
    def get_scaffold_params(cls) -> type[DvcScaffoldParams]:
        """The options of the command."""
        return DvcScaffoldParams

    def scaffold(self, request: ScaffoldRequest[DvcScaffoldParams]) -> None:
        """Write the `defs.yaml` with the path of the project."""
        scaffold_component(request, {"project": request.params.project})


def _resolve_project(context: dg.ResolutionContext, model: Any) -> str | RemoteGitDvcProject:
    """A path becomes absolute: it is meant from the component's folder."""
    if isinstance(model, str):
        return str(context.resolve_source_relative_path(context.resolve_value(model, as_type=str)))
    remote: RemoteGitDvcProject = RemoteGitDvcProject.resolve_from_model(context, model)
    return remote


@scaffold_with(DvcProjectScaffolder)
@dataclass
class DvcProjectComponent(dg.StateBackedComponent, dg.Resolvable):
    """The stages of a DVC project as assets, with the sensor that follows dvc.lock.

    ```yaml
    type: dagster_dvc.DvcProjectComponent
    attributes:
      project: ../../..
      exclude: [report]
      translation:
        group_name: "{{ stage.settings.group }}"
        key: "models/{{ stage.name }}"
    ```

    What the definitions need of the project is a file of state: `dg dev` writes it anew at each load, elsewhere
    `dg utils refresh-defs-state` or the sensor does. So a load reads neither checkout nor data. Override
    `get_asset_spec` or `execute` for what YAML cannot say.

    Attributes:
        project: the DVC project, or a folder in it, relative to the component's folder; or a Git repository that holds
            one.
        select: the stages that are shown: names as `dvc repro` takes them, with `*` and `?`; all where it is empty.
        exclude: those that are not.
        cli_args: of DVC, before the names of the stages; texts may hold `{{ context.partition_key }}` and the like.
        op: tags, pool and backfill policy of every step; the name too of the single one.
        single_step: one step and one process of DVC for all stages that have no partitions.
        translation: asset attributes, with `stage` (a `DvcStage`) and `spec` as template variables.
        sensor: whether the sensor comes with it.
        sensor_interval_s: seconds between two looks of the sensor.
        refresh_if_dev: whether `dg dev` writes the state anew at each load.
    """

    project: Annotated[
        str | RemoteGitDvcProject,
        dg.Resolver(_resolve_project, model_field_type=str | RemoteGitDvcProject.model()),
    ]
    select: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    cli_args: Annotated[list[str], dg.Resolver.passthrough()] = field(
        default_factory=lambda: ["repro", "--single-item"]
    )
    op: OpSpec | None = None
    single_step: bool = False
    translation: (
        Annotated[TranslationFn[DvcStage], TranslationFnResolver[DvcStage](lambda stage: {"stage": stage})] | None
    ) = None
    sensor: bool = True
    sensor_interval_s: int = 15
    refresh_if_dev: bool = True

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Where the state lies."""
        where = Path(self.project).name if isinstance(self.project, str) else self.project.name
        return DefsStateConfig(
            key=f"DvcProjectComponent[{where}]",
            management_type=DefsStateManagementType.LOCAL_FILESYSTEM,
            refresh_if_dev=self.refresh_if_dev,
        )

    @cached_property
    def translator(self) -> DvcTranslator:
        """How stages read in Dagster."""
        return _OfComponent(self)

    def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
        """The asset of a stage; `stages` are all of the project, by target."""
        spec = DvcTranslator.get_asset_spec(self.translator, stage, stages)
        if self.translation is None:
            return spec
        return self.translation(spec.replace_attributes(key=DvcTranslator().get_asset_key(stage)), stage)

    def execute(
        self, context: dg.AssetExecutionContext, dvc: DvcCliResource, stages: Sequence[DvcStage]
    ) -> Iterator[Any]:
        """Run stages, given in an order in which each comes after what it reads.

        Args:
            context: Dagster's, with what was asked for.
            dvc: runs the stages.
            stages: makers first.

        Yields:
            The events of the stages.
        """
        yield from repro(self.translator, self.get_cli_args(context))(context, dvc, stages)

    def get_cli_args(self, context: dg.AssetExecutionContext) -> list[str]:
        """`cli_args` with their templates filled."""
        scope = dg.ResolutionContext.default().with_scope(context=context)
        return [str(scope.resolve_value(text)) for text in self.cli_args]

    def write_state_to_path(self, state_path: Path) -> None:
        """Read the project, and keep what the definitions need of it."""
        if not isinstance(self.project, str):
            self.project.refresh(_clone(state_path))
        write_state(self._checkout(state_path).read(), state_path)

    def _checkout(self, state_path: Path | None) -> DvcProject:
        """The project on disk, with its selection.

        Args:
            state_path: of the state of a remote project; None where there is none.

        Returns:
            The project, cloned where it is remote.

        Raises:
            DvcProjectError: a remote project was not cloned yet.
        """
        if isinstance(self.project, str):
            project = DvcProject.at(Path(self.project))
        elif state_path is not None:
            project = self.project.at(_clone(state_path))
        else:
            raise DvcProjectError(f"{self.project.repo_url} was not cloned yet: run `dg utils refresh-defs-state`")
        return replace(project, select=tuple(self.select), exclude=tuple(self.exclude))

    def build_defs_from_state(
        self,
        context: ComponentLoadContext,  # noqa: ARG002 - of the interface
        state_path: Path | None,
    ) -> dg.Definitions:
        """The definitions of the project, and its resource under the key `dvc`; without state it is read here."""
        project = self._checkout(state_path)
        index = read_state(state_path) if state_path else project.read()
        sensor = build_dvc_sensor(
            project,
            self.translator,
            index=index,
            interval_s=self.sensor_interval_s,
            keep=(lambda now: write_state(now, state_path)) if state_path else None,
        )
        return dg.Definitions(
            assets=build_dvc_assets(
                project,
                self.translator,
                index=index,
                op=self.op,
                single_step=self.single_step,
                execute=self.execute,
            ),
            sensors=[sensor] if self.sensor else [],
            resources={"dvc": DvcCliResource(project_dir=str(project.root))},
        )


def _clone(state_path: Path) -> Path:
    """Where the clone of a remote project lies: beside its state, which Dagster keeps out of Git."""
    return state_path.parent / "project"
