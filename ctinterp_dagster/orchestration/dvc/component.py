"""A DVC project as a Dagster component, configured in YAML as dagster-dbt's `DbtProjectComponent` is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import dagster as dg
from dagster.components import ComponentLoadContext, Scaffolder, ScaffoldRequest, scaffold_component, scaffold_with
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import BaseModel, Field

from .assets import build_dvc_assets
from .project import DvcProject
from .resource import DvcCliResource
from .sensor import build_dvc_sensor
from .stage import DvcStage
from .translator import DvcTranslator


@dataclass(frozen=True)
class _TranslatedByYaml(DvcTranslator):
    """The default translation, then what the YAML changes in it."""

    translation: TranslationFn[DvcStage]

    def get_asset_key(self, stage: DvcStage) -> dg.AssetKey:
        key = super().get_asset_key(stage)
        return self.translation(dg.AssetSpec(key), stage).key

    def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
        spec = super().get_asset_spec(stage, stages)
        return self.translation(spec.replace_attributes(key=super().get_asset_key(stage)), stage)


class DvcScaffoldParams(BaseModel):
    """What `dg scaffold defs` asks for."""

    project_dir: str = Field(default=".", description="The DVC project, relative to the new component's folder.")


class DvcProjectScaffolder(Scaffolder[DvcScaffoldParams]):
    """Writes a `defs.yaml` that loads the project: `dg scaffold defs ... --project-dir ../../..`."""

    @classmethod
    def get_scaffold_params(cls) -> type[DvcScaffoldParams]:
        """The options of the command."""
        return DvcScaffoldParams

    def scaffold(self, request: ScaffoldRequest[DvcScaffoldParams]) -> None:
        """Write it."""
        scaffold_component(request, {"project_dir": request.params.project_dir})


@scaffold_with(DvcProjectScaffolder)
@dataclass
class DvcProjectComponent(dg.Component, dg.Resolvable):
    """Every stage of a DVC project as an asset, with the sensor that follows dvc.lock.

    ```yaml
    type: ctinterp_dagster.orchestration.dvc.DvcProjectComponent
    attributes:
      project_dir: ../../..
      translation:
        group_name: "{{ stage.settings.group }}"
        key: "models/{{ stage.name }}"
    ```

    Attributes:
        project_dir: the DVC project, or a folder in it, relative to the component's folder.
        translation: asset attributes, with `stage` (a `DvcStage`) and `spec` as template variables.
        sensor: whether the sensor comes with it.
        sensor_interval_s: seconds between two looks of the sensor.
    """

    project_dir: str
    translation: (
        Annotated[TranslationFn[DvcStage], TranslationFnResolver[DvcStage](lambda stage: {"stage": stage})] | None
    ) = None
    sensor: bool = True
    sensor_interval_s: int = 15

    def build_defs(self, context: ComponentLoadContext) -> dg.Definitions:
        """The definitions of the project, and its resource under the key `dvc`."""
        project = DvcProject.at(Path(context.path, self.project_dir).resolve())
        translator = _TranslatedByYaml(self.translation) if self.translation else DvcTranslator()
        return dg.Definitions(
            assets=build_dvc_assets(project, translator),
            sensors=[build_dvc_sensor(project, translator, interval_s=self.sensor_interval_s)] if self.sensor else [],
            resources={"dvc": DvcCliResource(project_dir=str(project.root))},
        )
