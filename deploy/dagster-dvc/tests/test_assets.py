"""Partitions, one step for all stages, and that Dagster's verdict is DVC's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from dagster.components.resolved.core_models import OpSpec
from dagster_dvc import DvcCliResource, DvcProject, DvcProjectError, DvcTranslator, build_dvc_assets
from dagster_dvc.sensor import lock_events

Status = Callable[[DvcProject], set[str]]
ITEMS = ("root-1", "root-2", "square-1", "square-2")
UNITS = {
    "prepare": ("prepare", None),
    **{f"featurize@{item}": ("featurize", item) for item in ("root", "square")},
    **{f"train@{item}": ("train", item) for item in ITEMS},
    "evaluate": ("evaluate", None),
}


def definitions(project: DvcProject, **options: Any) -> dg.Definitions:
    resources = {"dvc": DvcCliResource(project_dir=str(project.root))}
    return dg.Definitions(assets=build_dvc_assets(project, **options), resources=resources)


def stale(project: DvcProject, instance: dg.DagsterInstance) -> set[str]:
    graph = definitions(project).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {
        target
        for target, (name, partition) in UNITS.items()
        if resolver.get_status(dg.AssetKey(name), partition) != StaleStatus.FRESH
    }


def tick(project: DvcProject, instance: dg.DagsterInstance) -> list[Any]:
    events = lock_events(project.read(), project, DvcTranslator(), instance)
    for event in events:
        instance.report_runless_asset_event(event)
    return events


def run(project: DvcProject, instance: dg.DagsterInstance, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
    job = options.pop("job", {})
    selection = [dg.AssetKey(name) for name in names]
    return dg.materialize(
        build_dvc_assets(project, **options),
        instance=instance,
        resources={"dvc": DvcCliResource(project_dir=str(project.root))},
        selection=selection or None,
        **job,
    )


def edit(project: DvcProject, file: str, old: str, new: str) -> None:
    text = (project.root / file).read_text()
    assert old in text
    (project.root / file).write_text(text.replace(old, new))


def test_items_are_partitions_that_read_those_that_they_name(started: DvcProject) -> None:
    graph = definitions(started).resolve_asset_graph()
    train = graph.get(dg.AssetKey("train"))
    assert train.partitions_def.get_partition_keys() == list(ITEMS)
    mapping = train.partition_mappings[dg.AssetKey("featurize")]
    features = graph.get(dg.AssetKey("featurize")).partitions_def
    read = mapping.get_upstream_mapped_partitions_result_for_partitions(
        train.partitions_def.subset_with_partition_keys(["root-2"]), train.partitions_def, features
    )
    assert set(read.partitions_subset.get_partition_keys()) == {"root"}


def test_stages_that_read_each_other_are_no_partitions(started: DvcProject) -> None:
    edit(started, "dvc.yaml", "deps: [featurize.py, data/prepared.csv]", "deps: [featurize.py, '${dep}']")
    edit(
        started,
        "dvc.yaml",
        "foreach: [square, root]",
        "foreach: {square: data/prepared.csv, root: data/features-square.csv}",
    )
    edit(started, "dvc.yaml", "${dep}", "${item}")
    for old in ("featurize.py ${item}", "featurize.${item}", "features-${item}.csv"):
        edit(started, "dvc.yaml", old, old.replace("item", "key"))
    with pytest.raises(DvcProjectError, match=r"dvc\.yaml: featurize@root reads featurize@square: .* leave meta"):
        build_dvc_assets(started)


def test_a_partition_runs_alone_and_dagster_and_dvc_agree(
    started: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status
) -> None:
    tick(started, instance)
    assert stale(started, instance) == dvc_changed(started) == set()
    edit(started, "params.yaml", "power: 2", "power: 3")
    tick(started, instance)
    assert stale(started, instance) == dvc_changed(started) == {"featurize@square"}
    run(started, instance, "featurize", job={"partition_key": "square"})
    assert stale(started, instance) == dvc_changed(started) == {"train@square-1", "train@square-2"}
    run(started, instance, "train", job={"partition_key": "square-1"})
    assert stale(started, instance) == dvc_changed(started) == {"train@square-2", "evaluate"}
    assert tick(started, instance) == []
    run(started, instance, "train", job={"partition_key": "square-2"})
    run(started, instance, "evaluate")
    assert stale(started, instance) == dvc_changed(started) == set()


def test_a_run_of_dvc_outside_is_recorded_for_each_partition(
    started: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status, shell: Callable[..., str]
) -> None:
    tick(started, instance)
    edit(started, "params.yaml", "power: 2", "power: 3")
    shell(started.root, "dvc", "repro", "-q", "train@square-1")
    seen = {(e.asset_key.to_user_string(), e.partition) for e in tick(started, instance)}
    assert {("featurize", "square"), ("train", "square-1")} <= seen
    assert stale(started, instance) == dvc_changed(started) == {"train@square-2", "evaluate"}


def test_a_range_of_partitions_is_one_process_and_each_has_its_own_version(
    started: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status
) -> None:
    tick(started, instance)
    edit(started, "train.py", "import json,", "import  json,")
    tick(started, instance)
    tags = {"dagster/asset_partition_range_start": "root-1", "dagster/asset_partition_range_end": "square-2"}
    single_run = OpSpec(backfill_policy=dg.BackfillPolicy.single_run())
    assert stale(started, instance) == dvc_changed(started) == {f"train@{item}" for item in ITEMS}
    run(started, instance, "train", op=single_run, job={"tags": tags})
    assert stale(started, instance) == dvc_changed(started) == set()
    versions = {
        item: instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("train"), asset_partitions=[item]), limit=1
        )
        .records[0]
        .asset_materialization.tags["dagster/data_version"]
        for item in ITEMS
    }
    assert len(set(versions.values())) == 4
    assert tick(started, instance) == []


def test_a_run_that_puts_back_what_a_partition_read_leaves_the_partition_fresh(
    started: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status
) -> None:
    tick(started, instance)
    (started.root / "data" / "prepared.csv").unlink()
    (started.root / "data" / "prepared.csv").write_text("id,value\n1,1\n")
    tick(started, instance)
    assert {"featurize@root", "featurize@square"} <= stale(started, instance) == dvc_changed(started)
    run(started, instance, "prepare")
    assert stale(started, instance) == dvc_changed(started) == set()


def test_one_step_and_one_dvc_make_all_stages_without_partitions(
    started: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(started, "dvc.yaml", "partitions: true, ", "")
    edit(started, "params.yaml", "rows: 3", "rows: 2")
    result = run(started, instance, single_step=True)
    made = [event.event_specific_data.materialization for event in result.get_asset_materialization_events()]
    ran = {m.asset_key.to_user_string(): m.metadata["dvc/ran"].value for m in made}
    assert "mismatch" not in capsys.readouterr().err  # of the version that Dagster thinks a stage of the step has made
    assert len(ran) == 8
    assert all(ran.values())
    assert {event.step_key for event in result.get_step_success_events()} == {"dvc_repro"}
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    assert dvc_changed(started) == set()
    assert tick(started, instance) == []


def test_one_step_refuses_a_check_that_is_to_block(started: DvcProject) -> None:
    edit(started, "dvc.yaml", "max: 100", "max: 100, blocking: true")
    with pytest.raises(DvcProjectError, match="the blocking check best needs steps of their own"):
        build_dvc_assets(started, single_step=True)


def test_automation_freshness_and_code_come_from_dvc_yaml(started: DvcProject) -> None:
    graph = definitions(started).resolve_asset_graph()
    prepare = graph.get(dg.AssetKey("prepare"))
    assert prepare.automation_condition == dg.AutomationCondition.eager()
    assert prepare.freshness_policy_or_from_metadata.fail_window.to_timedelta().total_seconds() == 24 * 3600
    references = prepare.metadata["dagster/code_references"].code_references
    assert [Path(r.file_path).name for r in references] == ["dvc.yaml", "prepare.py"]


@pytest.mark.parametrize(("field", "wrong"), [("automation: eager", "automation: often"), ("fail_hours", "hours")])
def test_a_wish_that_dagster_does_not_know_is_refused(field: str, wrong: str, started: DvcProject) -> None:
    edit(started, "dvc.yaml", field, wrong)
    with pytest.raises(DvcProjectError, match=r"dvc\.yaml: prepare: meta\.dagster\.\w+: got .*, expected"):
        build_dvc_assets(started)


def test_dagster_shows_rows_columns_and_the_place_in_the_remote(
    started: DvcProject, instance: dg.DagsterInstance
) -> None:
    result = run(started, instance, "prepare")
    metadata = result.asset_materializations_for_node("prepare")[0].metadata
    assert metadata["dagster/row_count"].value == 3
    assert [column.name for column in metadata["dagster/column_schema"].schema.columns] == ["id", "value"]
    assert Path(metadata["dagster/uri"].value).is_file()  # the remote is a folder


def test_selected_stages_are_shown_with_their_sources(started: DvcProject) -> None:
    part = DvcProject(started.root, select=("prepare", "train"), exclude=("train@square-*",))
    graph = definitions(part).resolve_asset_graph()
    assert graph.materializable_asset_keys == {dg.AssetKey("prepare"), dg.AssetKey("train")}
    with pytest.raises(DvcProjectError, match="'trein' is no stage of the project: expected one of evaluate, "):
        build_dvc_assets(DvcProject(started.root, select=("trein",)))
