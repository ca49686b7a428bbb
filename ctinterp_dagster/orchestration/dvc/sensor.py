"""Sees what happens outside Dagster: `dvc repro`, `dvc pull`, `git checkout`, an edit of params.yaml or the code."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread

import dagster as dg
from dagster import AssetCheckEvaluation, AssetMaterialization, DagsterInstance
from dagster._core.errors import DagsterUserCodeUnreachableError  # no public name; what a lost code server raises
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin  # no public way to reload one's own location

from .asset_checks import check_results
from .metadata import stage_metadata
from .project import DvcProject
from .provenance import (
    LOCK_TAG,
    correcting_events,
    kept_metadata,
    latest_event,
    provenance_tags,
    recorded_tags,
)
from .stage import DvcIndex, digest
from .translator import DvcTranslator

_UNDER_WAY = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


def build_dvc_sensor(
    project: DvcProject,
    translator: DvcTranslator | None = None,
    *,
    index: DvcIndex | None = None,
    interval_s: int = 15,
    keep: Callable[[DvcIndex], None] | None = None,
) -> dg.SensorDefinition:
    """A sensor that keeps Dagster's view of the project the same as DVC's.

    - A lock entry that Dagster has not recorded becomes a materialization without a run, and so does a changed source.
      What a run under way will record is left to it.
    - Definitions that no longer are those of the files (two ticks long, so that an edit or a run has come to rest) make
      the code location reload, since Dagster reads code versions only when it loads. Where the code server cannot be
      reloaded from inside (in tests, `dagster api grpc`), the next reload of the location shows the change.

    Args:
        project: the project.
        translator: the one that the assets were built with.
        index: the project as the definitions show it, where it has been read already.
        interval_s: seconds between two looks; a look reads the project, about a tenth of a second of one core.
        keep: called with a changed project before the definitions are loaded again, where they are loaded of a state.

    Returns:
        A sensor that is on from the start.
    """
    translator = translator or DvcTranslator()
    loaded = _fingerprint(index or project.read())

    @dg.sensor(
        name="dvc_project",
        description="Records runs of DVC outside Dagster, and reloads the definitions when the project changes.",
        minimum_interval_seconds=interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        current = project.read()
        now = _fingerprint(current)
        if now != loaded and context.cursor == now:
            if keep:
                keep(current)
            _reload(context)
        events = lock_events(current, project, translator, context.instance)
        reason = None if events else "all that DVC knows is recorded, or a run under way will record it"
        return dg.SensorResult(asset_events=events, skip_reason=reason, cursor=now)

    return look


def lock_events(
    index: DvcIndex, project: DvcProject, translator: DvcTranslator, instance: DagsterInstance
) -> list[AssetMaterialization | AssetCheckEvaluation]:
    """What dvc.lock and the workspace hold and Dagster has not recorded: sources, then stages with their checks.

    Args:
        index: the project's stages and sources as they are.
        project: where they are.
        translator: names the assets.
        instance: what was recorded.

    Returns:
        Events to store; empty where Dagster has recorded all.
    """
    events: list[AssetMaterialization | AssetCheckEvaluation] = [
        *correcting_events(index, project, translator, instance),
    ]
    for stage in project.shown(index).values():
        if stage.lock is None:
            continue
        key = translator.get_asset_key(stage)
        tags = provenance_tags(stage, index.stages, translator)
        recorded = recorded_tags(instance, key, stage.partition)
        # A stage that DVC calls changed keeps the record of its last run: that is what makes it stale.
        if recorded.get(LOCK_TAG) == tags[LOCK_TAG] and (stage.changed or _provenance(recorded) == _provenance(tags)):
            continue
        if _left_to_a_run(instance, key, stage.partition, index.read_at):
            continue
        metadata = {**kept_metadata(stage, instance, key), **stage_metadata(stage, project.root)}
        events.append(
            AssetMaterialization(
                key, partition=stage.partition, description="Seen in dvc.lock.", metadata=metadata, tags=tags
            )
        )
        for result in check_results([stage], project.root):
            assert result.check_name is not None
            events.append(
                AssetCheckEvaluation(
                    asset_key=key,
                    check_name=result.check_name,
                    passed=result.passed,
                    severity=result.severity,
                    description=result.description,
                    metadata=result.metadata,
                )
            )
    return events


def _left_to_a_run(instance: DagsterInstance, key: dg.AssetKey, partition: str | None, read_at: float) -> bool:
    """Whether a run that is under way will record an asset, or it was recorded since the project was read."""
    planned = instance.event_log_storage.get_latest_planned_materialization_info(key)
    run = instance.get_run_by_id(planned.run_id) if planned else None
    if run is not None and run.status in _UNDER_WAY:
        return True
    latest = latest_event(instance, key, partition)
    return latest is not None and latest.timestamp >= read_at


def _provenance(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name.startswith("dagster/") and "pointer" not in name}


def _fingerprint(index: DvcIndex) -> str:
    """A hash of what the definitions say: stages, dependencies, settings, code versions, sources."""
    stages = [
        [s.target, s.code_version, s.makers, [i.path for i in s.sources], s.settings] for s in index.stages.values()
    ]
    return digest([stages, [[s.path, s.origin, s.description] for s in index.sources.values()]])


def _reload(context: dg.SensorEvaluationContext) -> None:
    """Ask the code server that this sensor runs in to load the code again, once this tick is over."""
    origin = context.code_location_origin
    if not isinstance(origin, GrpcServerCodeLocationOrigin):
        return
    client = origin.create_client()
    timeout_s = context.instance.code_server_reload_timeout
    context.log.info("the project changed: the definitions are loaded again")

    def ask() -> None:
        with suppress(DagsterUserCodeUnreachableError):
            client.reload_code(timeout=timeout_s)

    Thread(target=ask, daemon=True).start()
