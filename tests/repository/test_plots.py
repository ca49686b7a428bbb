"""`dvc plots show` asks nothing of a network, and draws a line a method and each validation loss."""

import json
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PLOTS = ROOT / ".dvc" / "plots"


def test_the_page_of_plots_holds_its_scripts() -> None:
    assert "html_template = plots/page.html" in (ROOT / ".dvc" / "config").read_text()
    page = (PLOTS / "page.html").read_text()
    assert "{plot_divs}" in page
    assert "{scripts}" not in page  # where DVC puts the addresses of a server
    assert "<script src" not in page
    assert [f"/* {name} " in page for name in ("vega", "vega-lite", "vega-embed")] == [True] * 3
    assert (PLOTS / "page.html").stat().st_size <= 2**20
    assert (PLOTS / "LICENSE").read_text().count("Redistribution and use") == 3


def test_every_template_that_a_stage_names_is_there() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    entries = [entry for stage in stages for entry in stage.get("plots", []) if isinstance(entry, dict)]
    templates = {path: values.get("template") for entry in entries for path, values in entry.items()}
    assert {path for path, name in templates.items() if name == "curve"} == {p for p in templates if "/curve.csv" in p}
    assert templates["reports/evaluate/position.csv"] == "lines"
    for name in ("curve", "lines", "points"):
        template = json.loads((PLOTS / f"{name}.json").read_text())
        assert template["data"] == {"values": "<DVC_METRIC_DATA>"}
