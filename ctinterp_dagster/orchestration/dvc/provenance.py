"""dvc.lock, said in Dagster's event tags, so that Dagster's "stale" means what `dvc status` means.

Dagster compares three things with the latest materialization of an asset: the code version of its definition, the data
versions of its upstream assets, and which upstream assets it has. The tags below put in their place what DVC recorded.
The names of the tags are Dagster's own and internal: tests/orchestration holds them to what Dagster does with them.
"""

from collections.abc import Mapping

import dagster as dg
from dagster import AssetMaterialization, DagsterInstance

from .metadata import source_metadata, stage_metadata
from .project import DvcProject
from .stage import DvcIndex, DvcStage, digest
from .translator import DvcTranslator

LOCK_TAG = "dvc/lock"
DATA_VERSION_TAG = "dagster/data_version"


def provenance_tags(stage: DvcStage, stages: Mapping[str, DvcStage], translator: DvcTranslator) -> dict[str, str]:
    """The tags of the materialization that dvc.lock records for a stage that has run."""
    versions = {translator.get_source_key(i.path): str(i.read) if i.changed else i.now for i in stage.sources}
    for target in stage.makers:
        versions[translator.get_asset_key(stages[target])] = _version_read(stage, stages[target])
    tags = {
        DATA_VERSION_TAG: str(stage.data_version),
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": str(stage.locked_code_version),
        LOCK_TAG: digest(stage.lock),
    }
    for key, version in versions.items():
        tags[_read_tag(key)] = version
        tags[f"dagster/input_event_pointer/{key.to_user_string()}"] = "NULL"
    return tags


def _version_read(stage: DvcStage, maker: DvcStage) -> str:
    """The data version of `maker` if what `stage` read is what is there now, else one that `maker` never has."""
    read = [i for i in stage.inputs if i.maker == maker.target]
    if any(i.changed for i in read):
        return f"superseded-{digest({i.path: i.read for i in read})}"
    return str(maker.data_version)


def source_events(index: DvcIndex, translator: DvcTranslator, instance: DagsterInstance) -> list[AssetMaterialization]:
    """Materializations of the sources whose content is not what Dagster recorded last."""
    events = []
    for path, source in index.sources.items():
        key = translator.get_source_key(path)
        if recorded_tags(instance, key).get(DATA_VERSION_TAG) != source.now:
            metadata = source_metadata(source)
            events.append(AssetMaterialization(key, metadata=metadata, tags={DATA_VERSION_TAG: source.now}))
    return events


def superseded_events(
    index: DvcIndex, project: DvcProject, translator: DvcTranslator, instance: DagsterInstance
) -> list[AssetMaterialization]:
    """Materializations of the stages that DVC calls changed and whose record calls them fresh.

    A stage that read a file that its maker had not made was up to date with it. When the maker puts its own file back,
    no version moves: only a new record shows that the stage read something else.
    """
    events = []
    for stage in index.stages.values():
        key = translator.get_asset_key(stage)
        if stage.changed and stage.lock is not None and _looks_fresh(stage, index.stages, translator, instance):
            events.append(
                AssetMaterialization(
                    key,
                    description="Made from what is no longer there.",
                    metadata=stage_metadata(stage, project.root),
                    tags=provenance_tags(stage, index.stages, translator),
                )
            )
    return events


def _looks_fresh(
    stage: DvcStage, stages: Mapping[str, DvcStage], translator: DvcTranslator, instance: DagsterInstance
) -> bool:
    """Whether the record of a stage says that it read the present outputs of the makers of a changed input."""
    recorded = recorded_tags(instance, translator.get_asset_key(stage))
    makers = {i.maker for i in stage.inputs if i.changed and i.maker is not None}
    read = {maker: recorded.get(_read_tag(translator.get_asset_key(stages[maker]))) for maker in makers}
    same_code = recorded.get("dagster/code_version") == stage.code_version
    return same_code and bool(read) and all(read[m] == stages[m].data_version for m in makers)


def _read_tag(key: dg.AssetKey) -> str:
    return f"dagster/input_data_version/{key.to_user_string()}"


def recorded_tags(instance: DagsterInstance, key: dg.AssetKey) -> Mapping[str, str]:
    """The tags of the latest materialization of an asset; empty if there is none."""
    event = instance.get_latest_materialization_event(key)
    materialization = event.asset_materialization if event else None
    return (materialization.tags if materialization else None) or {}
