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
# Of a partitioned asset Dagster compares no versions: it asks whether a partition has a new one since an event. These
# stand for the first event of all and for one that never comes.
_READ_BEFORE, _READ_NOW = "1", str(2**62)
DATA_VERSION_TAG = "dagster/data_version"


def provenance_tags(stage: DvcStage, stages: Mapping[str, DvcStage], translator: DvcTranslator) -> dict[str, str]:
    """The tags of the materialization that dvc.lock records for a stage that has run.

    Args:
        stage: one that has run.
        stages: all of the project, by target.
        translator: gives the keys of assets and sources.

    Returns:
        Tags for code, data and lock, and for every input that was read.
    """
    tags = {
        DATA_VERSION_TAG: str(stage.data_version),
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": _code_version(stage, translator),
        LOCK_TAG: digest(stage.lock),
    }
    for source in stage.sources:
        key = translator.get_source_key(source.path)
        tags |= {_read_tag(key): str(source.read) if source.changed else source.now, _pointer_tag(key): "NULL"}
    makers: dict[dg.AssetKey, list[DvcStage]] = {}
    for target in stage.makers:
        makers.setdefault(translator.get_asset_key(stages[target]), []).append(stages[target])
    for key, made in makers.items():
        if made[0].partition is None:
            tags |= {_read_tag(key): _version_read(stage, made[0]), _pointer_tag(key): "NULL"}
        else:
            changed = any(i.changed for i in stage.inputs if i.maker in {maker.target for maker in made})
            versions = digest([_version_read(stage, maker) for maker in made])
            tags |= {_read_tag(key): versions, _pointer_tag(key): _READ_BEFORE if changed else _READ_NOW}
    return tags


def _code_version(stage: DvcStage, translator: DvcTranslator) -> str:
    """The code version of the last run; of a partition, that of its asset if it ran with the present one."""
    if stage.partition is not None and stage.code_version == stage.locked_code_version:
        return translator.get_code_version(stage)
    return str(stage.locked_code_version)


def _version_read(stage: DvcStage, maker: DvcStage) -> str:
    """The data version of `maker` if what `stage` read is what is there now, else one that `maker` never has."""
    read = [i for i in stage.inputs if i.maker == maker.target]
    if any(i.changed for i in read):
        return f"superseded-{digest({i.path: i.read for i in read})}"
    return str(maker.data_version)


def correcting_events(
    index: DvcIndex, project: DvcProject, translator: DvcTranslator, instance: DagsterInstance
) -> list[AssetMaterialization]:
    """Materializations of what Dagster has a wrong record of: sources that changed, stages that look fresh.

    A stage that read a file that its maker had not made was up to date with it. When the maker puts its own file back,
    no version moves: only a new record shows that the stage read something else. Nor does one when the code of a single
    partition changes.

    Args:
        index: the project's stages and sources as they are.
        project: where they are.
        translator: names the assets.
        instance: what was recorded.

    Returns:
        Events to store; empty where nothing is wrong.
    """
    events = []
    for path, source in project.shown_sources(index).items():
        key = translator.get_source_key(path)
        if recorded_tags(instance, key).get(DATA_VERSION_TAG) != source.now:
            metadata = source_metadata(source)
            events.append(AssetMaterialization(key, metadata=metadata, tags={DATA_VERSION_TAG: source.now}))
    for stage in project.shown(index).values():
        key = translator.get_asset_key(stage)
        if stage.changed and stage.lock is not None and _looks_fresh(stage, index.stages, translator, instance):
            events.append(
                AssetMaterialization(
                    key,
                    partition=stage.partition,
                    description="Made from what is no longer there.",
                    metadata={**kept_metadata(stage, instance, key), **stage_metadata(stage, project.root)},
                    tags=provenance_tags(stage, index.stages, translator),
                )
            )
    return events


def _looks_fresh(
    stage: DvcStage, stages: Mapping[str, DvcStage], translator: DvcTranslator, instance: DagsterInstance
) -> bool:
    """Whether the record of a stage says that it read the present outputs of the makers of a changed input."""
    recorded = recorded_tags(instance, translator.get_asset_key(stage), stage.partition)
    makers = [stages[i.maker] for i in stage.inputs if i.changed and i.maker is not None]
    own = stage.partition is not None and stage.code_version != stage.locked_code_version
    if recorded.get("dagster/code_version") != translator.get_code_version(stage) or not (makers or own):
        return False
    if own:
        return True
    for maker in makers:
        key = translator.get_asset_key(maker)
        if maker.partition is None and recorded.get(_read_tag(key)) != maker.data_version:
            return False
        if maker.partition is not None and recorded.get(_pointer_tag(key)) != _READ_NOW:
            return False
    return True


def _read_tag(key: dg.AssetKey) -> str:
    return f"dagster/input_data_version/{key.to_user_string()}"


def _pointer_tag(key: dg.AssetKey) -> str:
    return f"dagster/input_event_pointer/{key.to_user_string()}"


def recorded_tags(instance: DagsterInstance, key: dg.AssetKey, partition: str | None = None) -> Mapping[str, str]:
    """The tags of the latest materialization of an asset or partition.

    Args:
        instance: Dagster's.
        key: of the asset.
        partition: None for an asset without partitions.

    Returns:
        Tags by name; empty if there is no materialization.
    """
    event = latest_event(instance, key, partition)
    materialization = event.asset_materialization if event else None
    return (materialization.tags if materialization else None) or {}


def kept_metadata(stage: DvcStage, instance: DagsterInstance, key: dg.AssetKey) -> Mapping[str, dg.MetadataValue]:
    """The metadata of the latest materialization if it is of the run that dvc.lock holds; empty otherwise.

    What a stage said of itself through Pipes is in no file: a record without a run would lose it.

    Args:
        stage: with its lock entry.
        instance: Dagster's.
        key: of the stage's asset.

    Returns:
        Metadata by name.
    """
    event = latest_event(instance, key, stage.partition)
    made = event.asset_materialization if event else None
    return made.metadata if made and (made.tags or {}).get(LOCK_TAG) == digest(stage.lock) else {}


def latest_event(instance: DagsterInstance, key: dg.AssetKey, partition: str | None = None) -> dg.EventLogEntry | None:
    """The latest materialization of an asset or partition.

    Args:
        instance: Dagster's.
        key: of the asset.
        partition: None for an asset without partitions.

    Returns:
        The log entry; None if there is no materialization.
    """
    if partition is None:
        return instance.get_latest_materialization_event(key)
    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].event_log_entry if records else None
