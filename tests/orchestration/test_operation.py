"""The smoke project as an operator has it: `dg dev`, a run, new scans, a retraining, the pages that show it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctinterp_dagster.champion import Registry
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import read_csv, write_csv
from ctinterp_dagster.scan.io import write_volume
from tests.checkout import STAGES
from tests.conftest import ROOT, smoke_params
from tests.orchestration.browser import Browser
from tests.orchestration.server import Server, wait_for
from tests.phantoms import phantom

Shell = Callable[..., str]

FIRST = {"s1": "train", "s2": "train", "s3": "val", "s4": "test"}
PICTURES = os.environ.get("PICTURES")  # a folder that the browser's pictures are written to

PREVIEW = "document.querySelector('img[src^=\"data:image/png\"]')"

ASSET = """query($k: AssetKeyInput!){assetNodeOrError(assetKey:$k){... on AssetNode{
    description
    assetChecksOrError{... on AssetChecks{checks{name blocking executionForLatestMaterialization{status}}}}
    assetMaterializations{partition metadataEntries{label ... on TextMetadataEntry{text}
        ... on FloatMetadataEntry{floatValue} ... on MarkdownMetadataEntry{mdStr}
        ... on TableMetadataEntry{table{records}}}}
    assetObservations{partition metadataEntries{label ... on TextMetadataEntry{text}
        ... on FloatMetadataEntry{floatValue} ... on MarkdownMetadataEntry{mdStr}}}
}}}"""


def drop(layout: Layout, splits: dict[str, str]) -> None:
    """Put scans and their splits into data/raw all at once, each whole, as `ctinterp scans add` does."""
    table = layout.raw / "scans.csv"
    rows = read_csv(table) if table.exists() else []
    for number, (name, split) in enumerate(splits.items(), start=len(rows)):
        rows.append({"file": f"{name}.nii", "patient": name, "split": split})
        made = phantom(number, shape_zyx=(40, 48, 48), spacing_mm=(1.0, 7.0, 7.0), noise_hu=10.0)
        write_volume(made, layout.raw / f".partial-{name}.nii")
    write_csv(table, rows, ["file", "patient", "split"])
    for name in splits:
        (layout.raw / f".partial-{name}.nii").rename(layout.raw / f"{name}.nii")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A fresh copy of the project with the smoke preset, four scans, and an impatient operator."""
    root = tmp_path_factory.mktemp("operation") / "project"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in files:
        if (ROOT / file).exists():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, root / file)
    (root / "dvc.lock").unlink()
    shutil.rmtree(root / "reports")
    shutil.copytree(ROOT / "reports" / "evidence", root / "reports" / "evidence")  # what report reads
    smoke_params(root)
    text = (root / "operate.yaml").read_text()
    impatient = {"settle_s: 10": "settle_s: 3", "interval_s: 30": "interval_s: 5", "_scans: 5": "_scans: 2"}
    for old, new in (impatient | {'"0 2 * * 0"': '"* * * * *"'}).items():
        assert old in text
        text = text.replace(old, new)
    (root / "operate.yaml").write_text(text)
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "begin")):
        subprocess.run(["git", *command], cwd=root, check=True)
    layout = Layout(root)
    drop(layout, FIRST)
    return layout


@pytest.fixture(scope="module")
def server(checkout: Layout, environment: None) -> Iterator[Server]:
    key = str(checkout.root.parent / "key")
    running = Server(checkout.root, PYTHONPATH=str(checkout.root), CTINTERP_KEY_FILE=key, OMP_NUM_THREADS="2")
    try:
        wait_for(running.loaded, 900)
        yield running
    finally:
        running.stop()


def asset(server: Server, key: str) -> dict[str, Any]:
    return dict(server.ask(ASSET, k={"path": key.split("/")})["assetNodeOrError"])


def labels(event: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an event by label."""
    values = ({**entry} for entry in event["metadataEntries"])
    return {entry.pop("label"): next(iter(entry.values()), None) for entry in values}


@pytest.mark.slow
def test_dg_checks_and_lists_the_project(checkout: Layout, environment: None) -> None:
    def dg(*words: str) -> str:
        command = [Path(sys.executable).with_name("dg"), *words]
        variables = os.environ | {"PYTHONPATH": str(checkout.root)}
        return subprocess.run(
            command, cwd=checkout.root, env=variables, capture_output=True, text=True, check=True
        ).stdout

    assert "All definitions loaded successfully." in dg("check", "defs")
    listed = json.loads(dg("list", "defs", "--json"))
    named = {kind: {one.get("asset_key") or one["name"] for one in listed[kind]} for kind in listed}
    assert {*STAGES, "data/raw", "scan", "published"} <= named["assets"]
    assert named["jobs"] == {"retrain", "take_in_scans"}
    assert named["schedules"] == {"retrain_on_new_scans"}
    assert named["sensors"] == {"dvc_project", "failed_runs", "new_scans"}


@pytest.mark.slow
def test_a_run_from_the_scans_to_the_champion(server: Server, checkout: Layout, shell: Shell) -> None:
    server.finish(server.launch("retrain"))
    assert shell(checkout.root, "dvc", "status").strip() == "Data and pipelines are up to date."
    assert server.stale() <= {"scan", "published"}
    evaluated = asset(server, "evaluate")
    states = {c["name"]: (c["executionForLatestMaterialization"] or {}).get("status") for c in
              evaluated["assetChecksOrError"]["checks"]}  # fmt: skip
    assert states["psnr_db"] == states["residual_hu"] == "SUCCEEDED"
    shown = labels(evaluated["assetMaterializations"][0])
    scores = json.loads((checkout.report("evaluate") / "metrics.json").read_text())
    assert shown["box-x2.5.psnr_db"] == pytest.approx(scores["box-x2.5"]["psnr_db"])
    assert "table/per_case" in shown
    steps = [labels(event)["step"] for event in asset(server, "train")["assetObservations"]]
    assert max(steps) == 4
    reported = asset(server, "report")
    assert any(str(labels(event).get("preview")).startswith("![") for event in reported["assetObservations"])
    assert any("data:image/png" in str(value) for value in labels(reported["assetMaterializations"][0]).values())
    champion = Registry(checkout.promote).champion
    assert champion is not None
    assert f"champion-{champion.name}" in shell(checkout.root, "git", "tag")


@pytest.mark.slow
def test_new_scans_are_taken_in_and_retrained_on(server: Server, checkout: Layout, shell: Shell) -> None:
    first = Registry(checkout.promote).champion
    server.start_sensor("new_scans")
    wait_for(lambda: len(asset(server, "scan")["assetMaterializations"]) == len(FIRST))
    drop(checkout, {"s5": "train", "s6": "train"})
    (checkout.raw / "broken.nii").write_bytes(b"no scan at all")
    wait_for(lambda: server.runs("take_in_scans"))
    (run,) = server.runs("take_in_scans")
    assert {"key": "ctinterp/trigger", "value": "new_scans"} in run["tags"]
    server.finish(run["runId"])
    wait_for(lambda: len(asset(server, "scan")["assetMaterializations"]) == len(FIRST) + 2)
    rows = {event["partition"]: labels(event) for event in asset(server, "scan")["assetMaterializations"]}
    assert rows["s5"]["verdict"] == "fit"
    assert rows["s5"]["thumbnail"].startswith("![s5](data:image/png;base64,")
    (refused,) = (labels(event) for event in asset(server, "scan")["assetObservations"])
    assert (refused["verdict"], refused["reason"]) == ("quarantined", "unreadable")

    before = len(server.runs("retrain"))
    server.start_schedule("retrain_on_new_scans")
    wait_for(lambda: len(server.runs("retrain")) > before)
    server.finish(server.runs("retrain")[0]["runId"])
    registry = Registry(checkout.promote)
    assert [len(challenger.seen) for challenger in registry.challengers] == [4, 6]
    decision = json.loads((checkout.report("promote") / "decision.json").read_text())
    champion = registry.champion
    assert (champion != first) == decision["promoted"]
    checks = asset(server, "promote")["assetChecksOrError"]["checks"]
    states = {check["name"]: check["executionForLatestMaterialization"]["status"] for check in checks}
    assert states["champion"] == ("SUCCEEDED" if decision["promoted"] else "FAILED")
    assert len(shell(checkout.root, "git", "log", "--format=%s", "retrain").splitlines()) == 3
    assert shell(checkout.root, "dvc", "status").strip() == "Data and pipelines are up to date."
    assert len(server.runs("take_in_scans")) == 1


@pytest.mark.slow
def test_a_person_sees_the_graph_the_numbers_and_the_pictures(server: Server, checkout: Layout, tmp_path: Path) -> None:
    wait_for(lambda: asset(server, "report")["assetMaterializations"])
    folder = Path(PICTURES or tmp_path)
    (refused,) = {row["partition"] for row in asset(server, "scan")["assetObservations"]}
    url = f"http://127.0.0.1:{server.port}"
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{url}/asset-groups", "data", "model", "results", "release")
        browser.picture(folder / "dagster-groups.png")
        whole = f"{url}/assets/report?view=lineage&lineageScope=upstream&lineageDepth=6"
        browser.open(whole, *STAGES)
        browser.picture(folder / "dagster-graph.png")
        described = "Scores of the model and of every classical method"
        browser.open(f"{url}/assets/evaluate", described, "box-x2.5.psnr_db")
        browser.picture(folder / "dagster-evaluate.png")
        browser.click("Plots")
        wait_for(lambda: browser.read("document.querySelectorAll('canvas').length"), 60)
        browser.picture(folder / "dagster-plots.png")
        browser.open(f"{url}/assets/report?view=events", "plot/s4-")
        browser.click("[Show Markdown]")
        wait_for(lambda: browser.read(f"{PREVIEW}?.naturalWidth"), 60)
        browser.picture(folder / "dagster-report.png")
        browser.open(f"{url}/assets/scan?view=events&partition={refused}", "quarantined", "unreadable")
        browser.picture(folder / "dagster-scans.png")
    for picture in folder.glob("dagster-*.png"):
        assert picture.stat().st_size > 10_000
