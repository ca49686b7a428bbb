"""Assets of the toy project: what Dagster shows, and that it agrees with DVC."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from ctinterp_dagster.orchestration.dvc import (
    DvcCliResource,
    DvcInvocation,
    DvcProject,
    DvcStage,
    DvcTranslator,
    build_dvc_assets,
)
from ctinterp_dagster.orchestration.dvc.sensor import lock_events

Edit = Callable[[DvcProject, str, str, str], None]
Talking = Callable[..., None]
Shell = Callable[..., str]
Status = Callable[[DvcProject], set[str]]

KEYS = {
    "prepare": dg.AssetKey("prepare"),
    "fit@a": dg.AssetKey(["fit", "a"]),
    "fit@b": dg.AssetKey(["fit", "b"]),
    "score": dg.AssetKey("score"),
}


# The same where the items of `fit` are partitions.
UNITS = {target: (dg.AssetKey(target.split("@")[0]), target.partition("@")[2] or None) for target in KEYS}


def specs(project: DvcProject, translator: DvcTranslator | None = None) -> dict[dg.AssetKey, dg.AssetSpec]:
    assets = build_dvc_assets(project, translator)
    return {spec.key: spec for asset in assets for spec in (asset.specs if hasattr(asset, "specs") else [asset])}


def materialize(
    project: DvcProject,
    instance: dg.DagsterInstance,
    *targets: str,
    raises: bool = True,
    selection: dg.AssetSelection | None = None,
    partition: str | None = None,
    **tags: str,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_dvc_assets(project),
        instance=instance,
        resources={"dvc": DvcCliResource(project_dir=str(project.root))},
        selection=selection or [KEYS[target] for target in targets] or None,
        raise_on_error=raises,
        partition_key=partition,
        tags=tags,
    )


def asset_graph(project: DvcProject) -> BaseAssetGraph[Any]:
    resources = {"dvc": DvcCliResource(project_dir=str(project.root))}
    return dg.Definitions(assets=build_dvc_assets(project), resources=resources).resolve_asset_graph()


def stale(project: DvcProject, instance: dg.DagsterInstance, *, partitions: bool = False) -> set[str]:
    """The stages that Dagster calls stale or missing after a reload."""
    graph = asset_graph(project)
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    units = UNITS if partitions else {target: (key, None) for target, key in KEYS.items()}
    return {target for target, unit in units.items() if resolver.get_status(*unit) != StaleStatus.FRESH}


def tick(project: DvcProject, instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    """What the sensor records, recorded."""
    events = lock_events(project.read(), project, DvcTranslator(), instance)
    for event in events:
        instance.report_runless_asset_event(event)
    return events


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def test_keys_groups_kinds_owners_and_dependencies_come_from_dvc_yaml(toy: DvcProject) -> None:
    by_key = specs(toy)
    assert set(by_key) == {*KEYS.values(), dg.AssetKey(["data", "raw.csv"])}
    prepare = by_key[KEYS["prepare"]]
    assert prepare.group_name == "data"
    assert prepare.kinds == {"dvc", "python"}
    assert prepare.owners == ["team:toys"]
    assert prepare.tags["tier"] == "low"
    assert prepare.description == "Doubles every number."
    assert {dep.asset_key for dep in prepare.deps} == {dg.AssetKey(["data", "raw.csv"])}
    assert {dep.asset_key for dep in by_key[KEYS["score"]].deps} == {KEYS["fit@a"], KEYS["fit@b"]}


def test_the_pool_comes_from_dvc_yaml(toy: DvcProject) -> None:
    ops = {asset.op.name: asset.op for asset in build_dvc_assets(toy) if isinstance(asset, dg.AssetsDefinition)}
    assert ops["prepare"].pool == "dvc"
    assert ops["fit__a"].pool is None


def test_a_translator_can_be_subclassed(toy: DvcProject) -> None:
    class Upper(DvcTranslator):
        def get_asset_key(self, stage: DvcStage) -> dg.AssetKey:
            return super().get_asset_key(stage).with_prefix("toys")

    by_key = specs(toy, Upper())
    assert dg.AssetKey(["toys", "fit", "a"]) in by_key
    assert {dep.asset_key for dep in by_key[dg.AssetKey(["toys", "fit", "a"])].deps} == {
        dg.AssetKey(["toys", "prepare"])
    }


def test_materializing_all_makes_what_dvc_repro_makes(
    fresh: DvcProject, run_template: Path, instance: dg.DagsterInstance, dvc_changed: Status, shell: Shell
) -> None:
    result = materialize(fresh, instance)
    assert (fresh.root / "dvc.lock").read_bytes() == (run_template / "dvc.lock").read_bytes()
    assert dvc_changed(fresh) == set()
    assert stale(fresh, instance) == set()
    assert "Running stage" not in shell(fresh.root, "dvc", "repro")
    metadata = result.asset_materializations_for_node("score")[0].metadata
    assert metadata["mean.a"].value == 6.0
    assert metadata["tiny"].value == 1e-05
    assert "done" not in metadata
    assert metadata["plot/curve"].value.startswith("![curve](data:image/png;base64,iVBOR")
    assert metadata["dvc/ran"].value is True
    assert metadata["dvc/duration_s"].value > 0
    assert tick(fresh, instance) == []


def test_a_stage_that_did_not_change_is_skipped_and_a_forced_one_runs(
    toy: DvcProject, instance: dg.DagsterInstance
) -> None:
    skipped = materialize(toy, instance, "prepare")
    assert skipped.asset_materializations_for_node("prepare")[0].metadata["dvc/ran"].value is False
    forced = materialize(toy, instance, "prepare", **{"dvc/force": "true"})
    assert forced.asset_materializations_for_node("prepare")[0].metadata["dvc/ran"].value is True


def test_dvc_is_not_started_for_stages_that_did_not_change(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(self: DvcInvocation, variables: dict[str, str]) -> Iterator[str]:
        started.append(self.arguments[-1])
        return really(self, variables)

    really = DvcInvocation._print
    monkeypatch.setattr(DvcInvocation, "_print", start)
    materialize(toy, instance)
    assert started == []
    assert stale(toy, instance) == set()
    edit(toy, "score.py", "means =", "means  =")
    materialize(toy, instance)
    assert started == ["score"]


def test_a_parameter_makes_stale_what_dvc_calls_changed_and_one_step_at_a_time(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, dvc_changed: Status
) -> None:
    tick(toy, instance)
    assert stale(toy, instance) == dvc_changed(toy) == set()
    edit(toy, "params.yaml", "rate: 0.5", "rate: 0.25")
    assert stale(toy, instance) == dvc_changed(toy) == {"fit@a", "fit@b"}
    tick(toy, instance)
    assert stale(toy, instance) == {"fit@a", "fit@b"}
    materialize(toy, instance, "fit@a")
    assert stale(toy, instance) == dvc_changed(toy) == {"fit@b", "score"}
    materialize(toy, instance, "fit@b", "score")
    assert stale(toy, instance) == dvc_changed(toy) == set()


def test_dvc_repro_outside_is_recorded_by_the_sensor(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, dvc_changed: Status, shell: Shell
) -> None:
    tick(toy, instance)
    edit(toy, "data/raw.csv", "3", "5")
    tick(toy, instance)
    assert stale(toy, instance) == dvc_changed(toy) == {"prepare"}
    shell(toy.root, "dvc", "repro", "-q", "fit@a")
    recorded = tick(toy, instance)
    assert {event.asset_key for event in recorded} == {KEYS["prepare"], KEYS["fit@a"]}
    assert stale(toy, instance) == dvc_changed(toy) == {"fit@b", "score"}
    assert tick(toy, instance) == []


def test_a_new_instance_learns_what_is_stale_from_dvc_lock(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, dvc_changed: Status, shell: Shell
) -> None:
    edit(toy, "params.yaml", "factor: 2", "factor: 3")
    shell(toy.root, "dvc", "repro", "-q", "prepare")
    tick(toy, instance)
    assert stale(toy, instance) == dvc_changed(toy) == {"fit@a", "fit@b"}


def test_git_checkout_with_dvc_checkout_leaves_nothing_stale(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, dvc_changed: Status, shell: Shell
) -> None:
    edit(toy, "params.yaml", "factor: 2", "factor: 3")
    shell(toy.root, "dvc", "repro", "-q")
    tick(toy, instance)
    shell(toy.root, "git", "checkout", "-q", ".")
    shell(toy.root, "dvc", "checkout", "-q")
    assert len(tick(toy, instance)) == 4
    assert stale(toy, instance) == dvc_changed(toy) == set()


@pytest.mark.parametrize("side", ["DVC", "Dagster"])
def test_a_stage_that_read_a_tampered_file_is_stale_when_the_file_is_put_right(
    side: str, toy: DvcProject, instance: dg.DagsterInstance, dvc_changed: Status, shell: Shell
) -> None:
    tick(toy, instance)
    (toy.root / "data" / "prepared.csv").unlink()  # it may be a link into the cache
    (toy.root / "data" / "prepared.csv").write_text("1\n")
    materialize(toy, instance, "fit@a", "score")
    if side == "Dagster":
        materialize(toy, instance, "prepare")
    else:
        shell(toy.root, "dvc", "repro", "-q", "prepare")
        tick(toy, instance)
    assert stale(toy, instance) == dvc_changed(toy) == {"fit@a"}
    assert tick(toy, instance) == []


AGREE = {
    "an output": ("data/prepared.csv", "6", "7"),
    "a metric": ("scores/metrics.json", "mean", "median"),
    "a float written otherwise": ("params.yaml", "factor: 2", "factor: 2.0"),
    "a new dependency": ("dvc.yaml", "deps: [score.py,", "deps: [data/prepared.csv, score.py,"),
    "a removed dependency": ("dvc.yaml", "deps: [score.py, models/a.json,", "deps: [score.py,"),
    "a frozen stage's source": ("data/raw.csv", "3", "4"),
}


@pytest.mark.parametrize("what", AGREE)
def test_dagster_and_dvc_agree_on_what_is_stale_after_an_edit_of(
    what: str, toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, dvc_changed: Status
) -> None:
    tick(toy, instance)
    if "frozen" in what:
        edit(toy, "dvc.yaml", "cmd: python prepare.py", "frozen: true\n    cmd: python prepare.py")
    edit(toy, *AGREE[what])
    tick(toy, instance)
    assert stale(toy, instance) == dvc_changed(toy)


def test_a_failing_stage_shows_its_own_message(toy: DvcProject, instance: dg.DagsterInstance, edit: Edit) -> None:
    edit(toy, "params.yaml", "rate: 0.5", "rate: -1")
    result = materialize(toy, instance, "fit@a", raises=False)
    failure = result.failure_data_for_node("fit__a").user_failure_data
    assert failure.description.splitlines()[0] == (
        "fit@a failed: ValueError: fit.rate is -1, expected a positive number in params.yaml"
    )
    assert "failed to reproduce 'fit@a'" in failure.description
    assert "ValueError: fit.rate" in failure.metadata["dvc/output"].value


@pytest.mark.slow
def test_a_stage_with_retries_is_tried_again_and_no_more_than_that(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit
) -> None:
    edit(toy, "prepare.py", "import pathlib", "open('tries', 'a').write('.')\n1 / 0")
    result = materialize(toy, instance, "prepare", raises=False)
    failure = result.failure_data_for_node("prepare").user_failure_data
    assert failure.description.startswith("prepare failed: ZeroDivisionError: division by zero")
    assert (toy.root / "tries").read_text() == ".."


def test_a_failure_of_dvc_itself_shows_what_dvc_says(toy: DvcProject, instance: dg.DagsterInstance) -> None:
    (toy.root / "fit.py").unlink()
    result = materialize(toy, instance, "fit@a", raises=False)
    failure = result.failure_data_for_node("fit__a").user_failure_data
    assert failure.description.startswith("fit@a failed: ERROR: failed to reproduce 'fit@a': ")
    assert "fit.py" in failure.description.splitlines()[0]


@pytest.mark.filterwarnings("ignore:.*currently in preview")
def test_what_the_stage_reports_through_pipes_is_in_the_materialization_while_its_result_stands(
    toy: DvcProject, instance: dg.DagsterInstance, edit: Edit, talking: Talking
) -> None:
    talking("pipes.report_asset_materialization(metadata={'epochs': 3})")
    for ran in (True, False):
        result = materialize(toy, instance, "fit@a")
        metadata = result.asset_materializations_for_node("fit__a")[0].metadata
        assert (next(iter(metadata)), metadata["epochs"].value, metadata["dvc/ran"].value) == ("epochs", 3, ran)
    edit(toy, "fit.py", "pipes.report", "0 and pipes.report")
    edit(toy, "fit.py", '["rate"]})', '["rate"], "more": 1})')
    metadata = materialize(toy, instance, "fit@a").asset_materializations_for_node("fit__a")[0].metadata
    assert "epochs" not in metadata


def test_metrics_of_a_third_name_are_one_table(toy: DvcProject, instance: dg.DagsterInstance, edit: Edit) -> None:
    """Their names are too long for a row each in Dagster's page."""
    edit(toy, "score.py", '{"mean": means,', '{"mean": means, "box": {"psnr_db": {"cubic": 1.5, "linear": {"a": 2}}},')
    result = materialize(toy, instance, "score")
    metadata = result.asset_materializations_for_node("score")[0].metadata
    assert [record.data for record in metadata["box.psnr_db"].records] == [
        {"name": "cubic", "value": 1.5},
        {"name": "linear.a", "value": 2.0},
    ]
    assert metadata["mean.a"].value == 6.0


def test_dvc_exp_run_with_a_parameter_works_beside_dagster(toy: DvcProject, shell: Shell) -> None:
    shell(toy.root, "dvc", "exp", "run", "-q", "-S", "fit.rate=0.125", "fit@a")
    assert "rate: 0.125" in (toy.root / "params.yaml").read_text()
    assert '"mean": 1.5' in (toy.root / "models" / "a.json").read_text()


@pytest.mark.filterwarnings("ignore:.*currently in beta")
@pytest.mark.parametrize(
    ("selection", "expected"),
    [("+key:score", set(KEYS)), ("+score", {"fit@a", "fit@b", "score"}), ("group:models", {"fit@a", "fit@b"})],
)
def test_a_selection_string_parses(selection: str, expected: set[str], toy: DvcProject) -> None:
    graph = asset_graph(toy)
    selected = dg.AssetSelection.from_string(selection).resolve(graph)
    assert selected & set(KEYS.values()) == {KEYS[target] for target in expected}


def test_a_project_can_be_copied_while_the_versions_stay(toy: DvcProject, tmp_path: Path) -> None:
    shutil.copytree(toy.root, tmp_path / "elsewhere")
    other = DvcProject.at(tmp_path / "elsewhere").read().stages
    assert {target: stage.code_version for target, stage in toy.read().stages.items()} == {
        target: stage.code_version for target, stage in other.items()
    }
