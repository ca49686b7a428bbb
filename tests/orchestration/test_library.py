"""What `meta.dagster`, .dvc files and the scaffold bring: sources, checks, selection, live observations, tables."""

import threading
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from ctinterp_dagster.orchestration.dvc import (
    DvcCliResource,
    DvcProject,
    DvcProjectComponent,
    DvcProjectError,
    build_dvc_assets,
    select_stages,
)
from ctinterp_dagster.orchestration.dvc.component import DvcScaffoldParams
from tests.orchestration.test_assets import KEYS, asset_graph, materialize, specs, tick

Edit = Callable[[DvcProject, str, str, str], None]
Talking = Callable[..., None]
Shell = Callable[..., str]

CHECKS = """meta:
      dagster:
        checks:
          - {metric: mean.*, max: "${limit}", blocking: true, description: Means are small.}
          - {metric: tiny, min: 1, severity: warn}
  publish:
    cmd: python -c "open('published', 'w').close()"
    deps: [scores/metrics.json]
    outs: [published]
vars: [{limit: 10}]
"""


EXTRA = """
vars: [{name: plus}]
stages:
  sum:
    wdir: ..
    matrix: {kind: [x, y], size: [0.1]}
    cmd: echo ${name}-${item.kind} > extra/${item.kind}.txt
    deps: [scores/metrics.json]
    outs: ["extra/${item.kind}.txt"]
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def checked(toy: DvcProject) -> DvcProject:
    """The toy project with thresholds on the metrics of `score`, and a stage after it."""
    text = (toy.root / "dvc.yaml").read_text()
    (toy.root / "dvc.yaml").write_text(text.rstrip() + "\n    " + CHECKS)
    return toy


def test_imported_and_unread_sources_are_assets_with_their_origin(toy: DvcProject, shell: Shell) -> None:
    (toy.root / "origin.txt").write_text("far away\n")
    shell(toy.root, "dvc", "import-url", "-q", "origin.txt", "data/far.txt")
    tracked = toy.root / "data" / "far.txt.dvc"
    tracked.write_text(f"desc: From far away.\n{tracked.read_text()}")
    source = toy.read().sources["data/far.txt"]
    assert source.origin == "origin.txt"
    spec = specs(toy)[dg.AssetKey(["data", "far.txt"])]
    assert spec.description == "From far away."
    assert spec.metadata["dvc/origin"] == "origin.txt"


def test_dvc_update_of_an_imported_source_is_recorded(
    toy: DvcProject, instance: dg.DagsterInstance, shell: Shell
) -> None:
    (toy.root / "origin.txt").write_text("far away\n")
    shell(toy.root, "dvc", "import-url", "-q", "origin.txt", "data/far.txt")
    tick(toy, instance)
    (toy.root / "origin.txt").write_text("further away\n")
    shell(toy.root, "dvc", "update", "-q", "data/far.txt.dvc")
    assert [event.asset_key.to_user_string() for event in tick(toy, instance)] == ["data/far.txt"]


@pytest.mark.parametrize(
    ("target", "single_item", "expected"),
    [
        ("score", False, {"prepare", "fit@a", "fit@b", "score"}),
        ("score", True, {"score"}),
        ("fit", True, {"fit@a", "fit@b"}),
        ("fit@b", False, {"prepare", "fit@b"}),
        ("dvc.yaml", True, set(KEYS)),
    ],
)
def test_assets_are_selected_by_the_names_that_dvc_repro_takes(
    target: str, *, single_item: bool, expected: set[str], toy: DvcProject
) -> None:
    selected = select_stages(toy.read(), target, single_item=single_item).resolve(asset_graph(toy))
    assert selected & set(KEYS.values()) == {KEYS[name] for name in expected}


def test_an_unknown_stage_is_refused_with_those_that_exist(toy: DvcProject) -> None:
    with pytest.raises(DvcProjectError, match="'fitt' is no stage of the project: expected one of fit@a, fit@b, prep"):
        select_stages(toy.read(), "fitt")


def test_a_threshold_that_holds_passes_and_one_that_does_not_warns(
    checked: DvcProject, instance: dg.DagsterInstance
) -> None:
    result = materialize(checked, instance)
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in checks.items()} == {"mean": True, "tiny": False}
    assert checks["tiny"].severity == dg.AssetCheckSeverity.WARN
    assert checks["tiny"].description == "tiny = 1e-05; expected at least 1"
    assert checks["mean"].metadata["mean.a"].value == 6.0
    assert (checked.root / "published").exists()


def test_a_blocking_threshold_that_fails_stops_what_comes_after(
    checked: DvcProject, instance: dg.DagsterInstance, edit: Edit
) -> None:
    edit(checked, "dvc.yaml", "limit: 10", "limit: 5")
    result = materialize(checked, instance, raises=False)
    assert not result.success
    check = next(c for c in result.get_asset_check_evaluations() if c.check_name == "mean")
    assert check.description == "mean.a = 6, mean.b = 6; expected at most 5"
    assert not (checked.root / "published").exists()


@pytest.mark.parametrize("checks", [[], ["mean"]])
def test_an_asset_is_selected_with_the_checks_that_are_asked_for(
    checks: list[str], checked: DvcProject, instance: dg.DagsterInstance
) -> None:
    selected = [dg.AssetCheckKey(KEYS["score"], name) for name in checks]
    result = materialize(
        checked,
        instance,
        selection=dg.AssetSelection.assets(KEYS["score"]).without_checks() | dg.AssetSelection.checks(*selected),
    )
    assert [check.check_name for check in result.get_asset_check_evaluations()] == checks
    assert len(result.asset_materializations_for_node("score")) == 1


def test_a_check_alone_judges_the_metrics_that_are_there(checked: DvcProject, instance: dg.DagsterInstance) -> None:
    result = materialize(checked, instance, selection=dg.AssetSelection.checks(dg.AssetCheckKey(KEYS["score"], "mean")))
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    assert result.get_asset_materialization_events() == []


def test_checks_of_a_run_outside_come_with_the_sensor(checked: DvcProject, instance: dg.DagsterInstance) -> None:
    events = [event for event in tick(checked, instance) if isinstance(event, dg.AssetCheckEvaluation)]
    assert {(event.check_name, event.passed) for event in events} == {("mean", True), ("tiny", False)}


def test_a_stage_of_another_dvc_yaml_runs_in_its_working_directory_and_is_clean_for_dvc(
    toy: DvcProject, instance: dg.DagsterInstance, dvc_changed: Callable[[DvcProject], set[str]]
) -> None:
    (toy.root / "extra").mkdir()
    (toy.root / "extra" / "dvc.yaml").write_text(EXTRA)
    assert dvc_changed(toy) == {"sum@x-0.1", "sum@y-0.1"}
    dg.materialize(
        build_dvc_assets(toy),
        instance=instance,
        resources={"dvc": DvcCliResource(project_dir=str(toy.root))},
        selection=[dg.AssetKey(["extra", "sum", "x-0.1"])],
    )
    assert (toy.root / "extra" / "x.txt").read_text() == "plus-x\n"
    assert dvc_changed(toy) == {"sum@y-0.1"}
    assert dg.AssetKey(["extra", "sum", "x-0.1"]) not in {event.asset_key for event in tick(toy, instance)}


@pytest.mark.parametrize("text", ["NaN", "Infinity"])
def test_a_metric_that_is_not_finite_or_not_there_fails(text: str, checked: DvcProject) -> None:
    file = checked.root / "scores" / "metrics.json"
    file.write_text(f'{{"mean": {{"a": {text}}}}}')
    with dg.DagsterInstance.ephemeral() as instance:
        events = [event for event in tick(checked, instance) if isinstance(event, dg.AssetCheckEvaluation)]
    assert {(event.check_name, event.passed) for event in events} == {("mean", False), ("tiny", False)}
    assert "no metric is named tiny" in str([event.description for event in events])


def test_a_check_with_an_unknown_field_is_refused(checked: DvcProject, edit: Edit) -> None:
    edit(checked, "dvc.yaml", "min: 1", "minimum: 1")
    with pytest.raises(DvcProjectError, match=r"dvc\.yaml: score: meta\.dagster\.checks: got .*'minimum': 1.*expected"):
        specs(checked)


@pytest.mark.filterwarnings("ignore:.*currently in preview")
def test_what_a_stage_says_while_it_runs_is_observed_at_once(
    toy: DvcProject, instance: dg.DagsterInstance, talking: Talking
) -> None:
    """The stage goes on when its first word was recorded."""
    talking(
        "import pathlib, time",
        "for step in (1, 2):",
        "    pipes.report_custom_message({'step': step, 'eta': 'soon', 'preview': 'scores/curve.png'})",
        "    print('step', step, flush=True)",
        "    for _ in range(1000):",
        "        if step == 2 or pathlib.Path('heard').exists(): break",
        "        time.sleep(0.02)",
        "    else: raise TimeoutError('nobody heard')",
    )

    def hear() -> None:
        while not instance.fetch_observations(KEYS["fit@a"], limit=1).records:
            time.sleep(0.02)
        (toy.root / "heard").touch()

    threading.Thread(target=hear, daemon=True).start()
    result = materialize(toy, instance, "fit@a")
    events = [e for e in result.all_events if e.is_asset_observation]
    observed = [e.asset_observation_data.asset_observation for e in events]
    assert [o.metadata["step"].value for o in observed] == [1.0, 2.0]
    assert observed[0].metadata["eta"].value == "soon"
    assert observed[0].metadata["preview"].value.startswith("![curve](data:image/png;base64,")


def test_a_csv_plot_is_shown_as_a_table(toy: DvcProject, instance: dg.DagsterInstance, edit: Edit) -> None:
    edit(toy, "dvc.yaml", "plots: [scores/curve.png", "plots: [{scores/rows.csv: {cache: false}}, scores/curve.png")
    edit(toy, "score.py", "import base64", "open('scores/rows.csv', 'w').write('case,psnr\\na,30.5\\n')\nimport base64")
    result = materialize(toy, instance, "score")
    table = result.asset_materializations_for_node("score")[0].metadata["table/rows"]
    assert [record.data for record in table.records] == [{"case": "a", "psnr": "30.5"}]


@pytest.mark.filterwarnings("ignore:.*currently in (preview|beta)")
def test_the_component_is_scaffolded_with_the_project_it_is_told(toy: DvcProject) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=DvcProjectComponent, scaffold_params=DvcScaffoldParams(project=str(toy.root)).model_dump()
        )
        written = yaml.safe_load((path / "defs.yaml").read_text())
        assert written["attributes"] == {"project": str(toy.root)}
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            assert dg.AssetKey("score") in defs.resolve_asset_graph().get_all_asset_keys()
