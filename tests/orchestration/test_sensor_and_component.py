"""The sensor, the YAML component and the command line, each as Dagster loads it."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from ctinterp_dagster.orchestration.dvc import (
    DvcCliResource,
    DvcProject,
    DvcProjectComponent,
    DvcTranslator,
    build_dvc_assets,
    build_dvc_sensor,
)
from ctinterp_dagster.orchestration.dvc.sensor import lock_events

Edit = Callable[[DvcProject, str, str, str], None]


def context(instance: dg.DagsterInstance) -> dg.SensorEvaluationContext:
    return dg.build_sensor_context(instance=instance)


def test_the_sensor_records_a_run_outside_once_and_keeps_what_it_saw(toy: DvcProject) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        sensor = build_dvc_sensor(toy)
        first = sensor(dg.build_sensor_context(instance=instance))
        assert [event.asset_key.to_user_string() for event in first.asset_events] == [
            "data/raw.csv",
            "fit/a",
            "fit/b",
            "prepare",
            "score",
        ]
        for event in first.asset_events:
            instance.report_runless_asset_event(event)
        second = sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor))
        assert second.asset_events == []
        assert first.skip_reason is None
        assert second.skip_reason
        assert second.cursor == first.cursor


@pytest.mark.parametrize(("status", "recorded"), [("STARTED", False), ("FAILURE", True), ("NOT_STARTED", True)])
def test_a_stage_that_a_run_under_way_will_record_is_left_to_it(
    status: str, *, recorded: bool, toy: DvcProject
) -> None:
    assets = build_dvc_assets(toy)
    resources = {"dvc": DvcCliResource(project_dir=str(toy.root))}
    job = dg.Definitions(assets=assets, resources=resources).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])
        seen = {event.asset_key.to_user_string() for event in build_dvc_sensor(toy)(context(instance)).asset_events}
    assert ("prepare" in seen) is recorded
    assert "data/raw.csv" in seen  # a source is recorded by whoever looks first


def test_a_stage_that_was_recorded_while_the_sensor_read_is_not_recorded_again(
    toy: DvcProject, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before = toy.read()
        edit(toy, "score.py", "means =", "means  =")
        resources = {"dvc": DvcCliResource(project_dir=str(toy.root))}
        dg.materialize(build_dvc_assets(toy), instance=instance, resources=resources)
        assert lock_events(before, toy, DvcTranslator(), instance) == []


def test_the_sensor_sees_a_change_of_the_definitions_in_its_cursor(toy: DvcProject, edit: Edit) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        sensor = build_dvc_sensor(toy)
        before = sensor(dg.build_sensor_context(instance=instance)).cursor
        edit(toy, "params.yaml", "rate: 0.5", "rate: 0.25")
        assert sensor(dg.build_sensor_context(instance=instance)).cursor != before


@pytest.mark.filterwarnings("ignore:.*currently in (preview|beta)")
def test_the_component_is_configured_in_yaml(toy: DvcProject) -> None:
    attributes = {
        "project": str(toy.root),
        "sensor_interval_s": 60,
        "translation": {
            "key": "toys/{{ spec.key.path[-1] }}",
            "group_name": "toys",
            "tags": {"of": "{{ stage.folder }}x"},
        },
    }
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=DvcProjectComponent, defs_yaml_contents={"type": KIND, "attributes": attributes}
        )
        assert yaml.safe_load((path / "defs.yaml").read_text())["attributes"] == attributes
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, DvcProjectComponent)
            graph = defs.resolve_asset_graph()
            score = graph.get(dg.AssetKey(["toys", "score"]))
            assert score.parent_keys == {dg.AssetKey(["toys", "a"]), dg.AssetKey(["toys", "b"])}
            assert score.group_name == "toys"
            assert score.tags["of"] == "x"
            assert [(s.name, s.minimum_interval_seconds) for s in defs.sensors] == [("dvc_project", 60)]


KIND = "ctinterp_dagster.orchestration.dvc.DvcProjectComponent"


@pytest.mark.slow
def test_the_command_line_takes_a_selection(toy: DvcProject, tmp_path: Path) -> None:
    (tmp_path / "toy_definitions.py").write_text(
        textwrap.dedent(
            """
            import pathlib, dagster as dg
            from ctinterp_dagster.orchestration.dvc import DvcCliResource, DvcProject, build_dvc_assets
            project = DvcProject.at(pathlib.Path.cwd())
            resources = {"dvc": DvcCliResource(project_dir=str(project.root))}
            defs = dg.Definitions(assets=build_dvc_assets(project), resources=resources)
            """
        )
    )
    command = ["asset", "list", "--select", "+key:score", "-f", str(tmp_path / "toy_definitions.py")]
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *command], cwd=toy.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fit/a", "fit/b", "prepare", "score"]
