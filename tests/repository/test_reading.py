"""The test that every parameter is read can fail: on a small stage, with a use taken away."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.repository.reading import unread


class Loop(BaseModel):
    steps: int


class Crust(BaseModel):
    depth: int
    seeds: int


class Layer(BaseModel):
    height: float


class Bake(Loop):
    oven: str
    crust: Crust
    layers: tuple[Layer, ...]


class Recipe(BaseModel):
    bake: Bake
    other: Crust


SECTIONS = {kind.__name__: kind for kind in (Loop, Crust, Layer, Bake, Recipe)}
STAGE = """
def run(params: Recipe) -> None:
    section, seed = params.bake, 1
    heat(section.oven, loop(section))
    crust(section.crust)
    for layer in section.layers:
        print(layer.height)
    print(params.other.depth, shop.seeds)

def crust(made: Crust) -> None:
    print(made.depth, made.seeds)
"""
SHARED = "def loop(section: Loop) -> int:\n    return section.steps\n"


def unread_of(folder: Path, stage: str) -> list[str]:
    (folder / "bake.py").write_text(stage)
    (folder / "shared.py").write_text(SHARED)
    return unread(Bake, [folder / "bake.py", folder / "shared.py"], SECTIONS)


def test_a_stage_that_reads_every_parameter_passes(tmp_path: Path) -> None:
    assert unread_of(tmp_path, STAGE) == []
    assert unread(Bake, [tmp_path / "bake.py"], SECTIONS) == ["steps"]


@pytest.mark.parametrize(
    ("use", "instead", "missing"),
    [
        ("section.oven", '"hot"', ["oven"]),
        ("layer.height", "layer", ["layers.height"]),
        ("made.seeds", "0", ["crust.seeds"]),  # another thing's attribute of that name is none
        ("made: Crust", "made", ["crust.seeds"]),  # the depth is read of the same kind of section elsewhere
    ],
)
def test_a_use_that_is_taken_away_is_missed(tmp_path: Path, use: str, instead: str, missing: list[str]) -> None:
    assert use in STAGE
    assert unread_of(tmp_path, STAGE.replace(use, instead)) == missing


def test_what_is_handed_on_as_a_whole_is_read(tmp_path: Path) -> None:
    handed = STAGE.replace("crust(section.crust)", "crust(**section.crust.model_dump())")
    assert unread_of(tmp_path, handed.replace("made: Crust", "made")) == []
    recorded = STAGE.replace("crust(section.crust)", "record(section.crust.model_dump())")
    assert unread_of(tmp_path, recorded.replace("made: Crust", "made")) == ["crust.seeds"]
