from pathlib import Path

from click.testing import CliRunner

from benchmarks.card import main
from ctinterp_dagster.records import write_json


def test_the_card_has_thick_slices_the_best_classical_method_and_the_model_in_four_columns(tmp_path: Path) -> None:
    widths = {"rods": 2, "truth": [1.5, 0.3], "nearest": [5.0, 0.1], "cubic": [4.5, 0.1], "linear": [6.0, 0.1]}
    rods = {contrast: widths | {"model": [3.04, 0.2]} for contrast in ("50", "200", "800")}
    write_json(tmp_path / "physics.json", {"runs": [], "tables": [], "records": [{"case": "a", "rods": rods}]})
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "| edge of 800 HU across the slices, full width, mm | 5.0 | 4.5 | 3.0 |" in done.output
    assert {line.count("|") for line in done.output.splitlines()} == {5}


def test_a_folder_without_evidence_is_refused_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 1
    assert "run the commands of docs/evidence.md" in done.output
