import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.kit import main
from benchmarks.packed_volumes import read_kit
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.pipeline.common.cases import Case, write_cases
from ctinterp_dagster.pipeline.trainings.training import thin_volumes
from ctinterp_dagster.scan.io import write_volume
from tests.conftest import smoke_params
from tests.phantoms import phantom

pytestmark = pytest.mark.slow

CASES = [Case("a", "p", "train"), Case("b", "q", "train"), Case("c", "r", "val"), Case("d", "s", "test")]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project after ingest."""
    layout = Layout(tmp_path)
    smoke_params(tmp_path, expect={"weights": {"b": 3.0}})
    write_cases(layout.ingest / "cases.csv", CASES)
    for number, case in enumerate(CASES):
        case.thin(layout).parent.mkdir(exist_ok=True)
        write_volume(phantom(number, (12, 20, 24), (1.0, 4.0, 4.0), 20.0), case.thin(layout))
    return layout


def test_the_command_packs_what_ingest_wrote_but_no_test_patient(layout: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    done = CliRunner().invoke(main, [str(folder), "--mib", "1", "--data", str(layout.root)], catch_exceptions=False)
    assert done.output.splitlines()[0].startswith("train a: 12x20x24 of 12x20x24, ")
    assert {path.name for path in folder.iterdir()} == {"a.npz", "b.npz", "c.npz", "kit.json"}
    assert {row["split"] for row in json.loads((folder / "kit.json").read_text())["volumes"]} == {"train", "val"}
    train, val = read_kit(folder)
    assert [(volume.case, volume.weight) for volume in (*train, *val)] == [("a", 1.0), ("b", 3.0), ("c", 1.0)]
    for ours, theirs in zip(
        (*train, *val), (*thin_volumes(layout, "train"), *thin_volumes(layout, "val")), strict=True
    ):
        assert torch.equal(ours.hu, theirs.hu)
        assert ours.spacing_mm == pytest.approx(theirs.spacing_mm)
