"""The settings of operation, and the definitions that stand on them."""

import tomllib
from pathlib import Path

import pytest
import yaml

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.orchestration.settings import OperateSettings
from ctinterp_dagster.params import load_section

ROOT = Path(__file__).parents[2]


def test_the_settings_of_the_checkout_are_read_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    assert load_section(OperateSettings, ROOT / "operate.yaml").publish.branch == "retrain"
    text = (ROOT / "operate.yaml").read_text().replace("min_new_scans: 5", "min_new_scans: 0")
    (tmp_path / "operate.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"operate\.yaml: retrain\.min_new_scans: .* greater than 0, got 0"):
        load_section(OperateSettings, tmp_path / "operate.yaml")


def test_settings_that_are_not_yaml_are_refused_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "operate.yaml").write_text("scans: {settle_s: 10\nretrain: [\n")
    with pytest.raises(ParamsError, match=r"^operate\.yaml is not YAML: .*line \d.*$"):
        load_section(OperateSettings, tmp_path / "operate.yaml")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('"0 2 * * 0"', '"every sunday"', 9, "retrain.cron: .*expected a cron schedule"),
        ("timezone: UTC", "timezone: Berlin", 10, "retrain.timezone: .*expected a time zone"),
        ("settle_s: 10", "settle_s: ten", 5, "scans.settle_s: .*valid number"),
        ("settle_s: 10", "settle_s: .inf", 5, "scans.settle_s: .*finite number"),
        ("new_scans: 5", "new_scans: yes", 11, "retrain.min_new_scans: .*valid integer"),
        ("branch: retrain", "branch: a b", 14, "publish.branch: .*name of a Git branch"),
        ("branch: retrain", "branch: ../elsewhere", 14, "publish.branch: .*name of a Git branch"),
        ('webhook: ""', "webhook: chat.example.org", 20, "alert.webhook: .*begins with http"),
        ("folder: .dagster/failures", 'folder: ""', 19, "alert.folder: .*at least 1 character"),
    ],
)
def test_a_typo_in_the_settings_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    text = (ROOT / "operate.yaml").read_text()
    assert old in text
    (tmp_path / "operate.yaml").write_text(text.replace(old, new))
    with pytest.raises(ParamsError, match=rf"operate\.yaml: {said}.*\(line {line}\)"):
        load_section(OperateSettings, tmp_path / "operate.yaml")


def test_the_definitions_of_the_checkout_name_what_an_operator_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from ctinterp_dagster.definitions import defs  # noqa: PLC0415 (read in the folder that it is started in)

    repository = defs.get_repository_def()
    assert {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")} == {
        "retrain",
        "take_in_scans",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {"dvc_project", "new_scans", "failed_runs"}
    assert {schedule.name for schedule in repository.schedule_defs} == {"retrain_on_new_scans"}
    selected = {key.to_user_string() for key in defs.resolve_job_def("retrain").asset_layer.selected_asset_keys}
    assert {"ingest", "train", "promote", "report", "published"} <= selected


def test_a_typo_in_operate_yaml_leaves_the_rest_of_the_project_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    from ctinterp_dagster import definitions  # noqa: PLC0415 (read in the folder that it is started in)

    def refuse(_: type[OperateSettings], path: Path) -> None:
        raise ParamsError(f"{path.name}: retrain.cron: expected a cron schedule (line 9)")

    monkeypatch.setattr(definitions, "load_section", refuse)
    (told,) = definitions.operation().assets
    assert told.description.startswith("**operate.yaml: retrain.cron: expected a cron schedule (line 9).**")
    rest = {key.to_user_string() for key in definitions.defs.resolve_asset_graph().get_all_asset_keys()}
    assert {"data/raw", "ingest", "train", "promote", "report", "scan"} <= rest


def test_dagster_dev_dg_dev_and_a_deployment_name_the_code_location_alike() -> None:
    """What is switched on belongs to that name: a sensor would be off under the other command."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (entry,) = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())["load_from"]
    names = (tool["dagster"], tool["dg"]["project"])
    assert {it["code_location_name"] for it in names} == {entry["grpc_server"]["location_name"]}
