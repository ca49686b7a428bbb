"""Which files an import runs, on a small package."""

from pathlib import Path

import pytest

from ctinterp_dagster.import_closure import code_version, imported_files

FILES = {
    "__init__.py": "import house.attic",
    "errors.py": "import house.attic",
    "attic.py": "ATTIC = 1",
    "cellar/__init__.py": "from house.cellar.wine import red",
    "cellar/wine.py": "def red(): ...",
    "cellar/coal.py": "import os.path\nfrom house import errors",
    "empty/__init__.py": "",
    "empty/room.py": "from house import attic",
    "kitchen.py": """
from typing import TYPE_CHECKING
import json
from house.cellar import coal
if TYPE_CHECKING:
    from house.empty.room import attic
def cook():
    from house.stove import heat
""",
    "stove.py": "import house.kitchen",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    return tmp_path / "house"


@pytest.mark.parametrize(
    ("module", "runs"),
    [
        ("attic.py", {"attic.py"}),
        ("empty/room.py", {"empty/room.py", "attic.py"}),
        # the package on the way and what it imports; what a function imports; no types, no file that changes no result
        ("kitchen.py", {"kitchen.py", "stove.py", "cellar/__init__.py", "cellar/wine.py", "cellar/coal.py"}),
    ],
)
def test_all_that_an_import_runs_is_found(house: Path, module: str, runs: set[str]) -> None:
    found = imported_files(house / module, house)
    assert {file.relative_to(house).as_posix() for file in found} == runs


def test_a_script_outside_of_the_package_counts_itself(house: Path) -> None:
    script = house.parent / "script.py"
    script.write_text("from house.cellar.wine import red")
    assert imported_files(script, house) == {script, house / "cellar" / "__init__.py", house / "cellar" / "wine.py"}


def test_the_version_of_code_changes_with_what_it_imports_and_with_nothing_else(house: Path) -> None:
    version = code_version(house / "empty" / "room.py", house)
    (house / "stove.py").write_text("HOT = True")
    (house / "errors.py").write_text("")
    assert code_version(house / "empty" / "room.py", house) == version
    (house / "attic.py").write_text("ATTIC = 2")
    assert code_version(house / "empty" / "room.py", house) != version
