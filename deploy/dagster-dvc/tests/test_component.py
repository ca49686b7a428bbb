"""The component in YAML and Python, its state, and the `dg` command line in a project that has nothing else."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from dagster_dvc import DvcCliResource, DvcProject, DvcProjectComponent, DvcStage, RemoteGitDvcProject, build_dvc_sensor
from dagster_dvc.state import read_state, write_state

Shell = Callable[..., str]
KIND = "dagster_dvc.DvcProjectComponent"


def load(attributes: dict[str, Any], kind: type[DvcProjectComponent] = DvcProjectComponent) -> dg.Definitions:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=kind, defs_yaml_contents={"type": KIND, "attributes": attributes}
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            return defs


def test_yaml_selects_stages_sets_the_op_and_changes_assets(started: DvcProject) -> None:
    defs = load(
        {
            "project": str(started.root),
            "exclude": ["evaluate"],
            "op": {"tags": {"size": "small"}, "pool": "dvc", "backfill_policy": {"type": "single_run"}},
            "translation": {"tags": {"of": "{{ stage.folder }}x"}, "key_prefix": "toys"},
        }
    )
    graph = defs.resolve_asset_graph()
    assert graph.materializable_asset_keys == {dg.AssetKey(["toys", n]) for n in ("prepare", "featurize", "train")}
    train = graph.get(dg.AssetKey(["toys", "train"]))
    assert train.parent_keys == {dg.AssetKey(["toys", "featurize"])}
    assert train.backfill_policy == dg.BackfillPolicy.single_run()
    op = train.assets_def.op
    assert (op.pool, op.tags["size"]) == ("dvc", "small")


def test_arguments_have_templates_and_execute_and_get_asset_spec_can_be_overridden(
    started: DvcProject, instance: dg.DagsterInstance
) -> None:
    said = []

    @dataclass
    class Own(DvcProjectComponent):
        def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
            return super().get_asset_spec(stage, stages).replace_attributes(owners=["team:own"])

        def execute(
            self, context: dg.AssetExecutionContext, dvc: DvcCliResource, stages: Sequence[DvcStage]
        ) -> Iterator[Any]:
            said.append(self.get_cli_args(context))
            yield from super().execute(context, dvc, stages)

    own = Own(
        project=str(started.root),
        cli_args=["repro", "--single-item", "{{ '--force' if context.partition_key == 'root' else '--dry' }}"],
    )
    defs = own.build_defs_from_state(None, None)
    assert defs.resolve_asset_graph().get(dg.AssetKey("train")).owners == ["team:own"]
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("featurize")], partition_key="root")
    assert said == [["repro", "--single-item", "--force"]]
    assert result.asset_materializations_for_node("featurize")[0].metadata["dvc/ran"].value is True


def test_a_state_holds_what_the_definitions_and_the_sensor_need(
    started: DvcProject, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    component = DvcProjectComponent(project=str(started.root))
    component.write_state_to_path(tmp_path / "state")
    assert read_state(tmp_path / "state") == read_state(tmp_path / "state")
    with monkeypatch.context() as patched:
        patched.delattr(DvcProject, "read")
        defs = component.build_defs_from_state(None, tmp_path / "state")
        assert dg.AssetKey("evaluate") in defs.resolve_asset_graph().get_all_asset_keys()
    (sensor,) = defs.sensors
    first = sensor(dg.build_sensor_context(instance=instance))
    (started.root / "params.yaml").write_text((started.root / "params.yaml").read_text().replace("rows: 3", "rows: 2"))
    for _ in range(2):  # it waits until the project has come to rest
        first = sensor(dg.build_sensor_context(instance=instance, cursor=first.cursor))
    assert read_state(tmp_path / "state").stages["prepare"].changed


def test_a_state_that_was_read_says_what_was_written(started: DvcProject, tmp_path: Path) -> None:
    (started.root / "params.yaml").write_text(
        "prepare: {rows: 3, 10: a, 9: b}\nfeaturize: {square: {power: 2}, root: {power: 0.5}}\n"
    )
    index = started.read()
    write_state(index, tmp_path / "state")
    assert read_state(tmp_path / "state") == index


def test_a_project_in_git_elsewhere_is_cloned_and_brought_up_to_date(
    started: DvcProject, instance: dg.DagsterInstance, tmp_path: Path, shell: Shell
) -> None:
    component = DvcProjectComponent(
        project=RemoteGitDvcProject(repo_url=str(started.root)), cli_args=["repro", "--single-item", "--pull"]
    )
    state = tmp_path / "of" / "state"
    state.parent.mkdir()
    component.write_state_to_path(state)
    defs = component.build_defs_from_state(None, state)
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("prepare")]).success
    assert (state.parent / "project" / "data" / "prepared.csv").is_file()
    (started.root / "dvc.yaml").write_text((started.root / "dvc.yaml").read_text().replace("Splits", "Parts"))
    shell(started.root, "git", "commit", "-qam", "words")
    component.write_state_to_path(state)
    assert read_state(state).stages["prepare"].description == "Parts the data."


@pytest.fixture
def empty(started: DvcProject) -> Path:
    """A Dagster project without definitions, in a folder of the DVC project."""
    root = started.root / "orchestrate"
    (root / "src" / "toys" / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        '[project]\nname = "toys"\nversion = "1"\n'
        '[tool.dg]\ndirectory_type = "project"\n'
        '[tool.dg.project]\nroot_module = "toys"\nregistry_modules = []\n'
    )
    for package in ("toys", "toys/defs"):
        (root / "src" / package / "__init__.py").touch()
    (root / "src" / "toys" / "definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n"
        "@dg.definitions\ndef defs():\n"
        "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    return root


def test_dg_scaffolds_checks_lists_and_launches(
    empty: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(empty / "src"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    dg_ = ("dg",)
    shell(empty, *dg_, "scaffold", "defs", KIND, "models", "--project", "../../../../..")
    assert "project: ../../../../.." in (empty / "src" / "toys" / "defs" / "models" / "defs.yaml").read_text()
    shell(empty, *dg_, "check", "yaml")
    shell(empty, *dg_, "check", "defs")
    listed = shell(empty, *dg_, "list", "defs")
    assert all(word in listed for word in ("prepare", "featurize", "train", "evaluate", "dvc_project"))
    shell(empty, *dg_, "launch", "--assets", "prepare")


def test_the_sensor_of_a_project_is_built_by_hand_too(started: DvcProject, instance: dg.DagsterInstance) -> None:
    seen = build_dvc_sensor(started)(dg.build_sensor_context(instance=instance))
    assert len(seen.asset_events) == 10  # eight stages, a check and a source


def answer(port: int, query: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with suppress(OSError), urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["data"]
    return None


def test_dg_dev_serves_the_project(empty: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(empty / "src"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shell(empty, "dg", "scaffold", "defs", KIND, "models", "--project", "../../../../..")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(["dg", "dev", "--port", str(port)], cwd=empty, start_new_session=True)
    try:
        keys: set[str] = set()
        deadline = time.monotonic() + 120
        while "evaluate" not in keys and time.monotonic() < deadline:
            time.sleep(1)
            nodes = (answer(port, "{assetNodes{assetKey{path}}}") or {}).get("assetNodes", [])
            keys = {"/".join(node["assetKey"]["path"]) for node in nodes}
        assert {"prepare", "featurize", "train", "evaluate", "data/data.csv"} <= keys
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # a job in the background ignores SIGINT
        server.wait(60)
