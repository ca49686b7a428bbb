"""One word for each step, the same everywhere; what a stage imports and reads is what DVC knows of."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ctinterp_dagster.params import Params

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WORDS = ["ingest", "thicken", "autoencoder", "encode", "expect", "train", "generate", "evaluate", "promote", "report"]


def imported_files(module: Path, seen: set[Path]) -> set[Path]:
    """The package's files that importing `module` runs, itself included."""
    if module in seen:
        return seen
    seen.add(module)
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = ROOT / Path(*name.split("."))
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if name.startswith("ctinterp_dagster.") and file.exists():
                    imported_files(file, seen)
    return seen


def parameters_read(module: Path) -> set[str]:
    """The sections of `params` that a pipeline module names."""
    tree = ast.parse(module.read_text())
    if "params.model_dump()" in module.read_text():
        return set(Params.model_fields)
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }


def test_a_stage_has_one_name_everywhere() -> None:
    assert list(STAGES) == WORDS
    assert sorted(p.stem for p in (ROOT / "stages").glob("*.py")) == sorted(WORDS)
    assert set(WORDS) <= {p.stem for p in (ROOT / "ctinterp_dagster" / "pipeline").glob("*.py")}
    assert set(Params.model_fields) == {"base", *WORDS}


@pytest.mark.parametrize("word", WORDS)
def test_the_code_that_a_stage_imports_is_among_its_deps(word: str) -> None:
    deps = [ROOT / dep for dep in STAGES[word]["deps"]]
    # What every stage shares changes often and changes no result: how parameters are typed, paths, errors, the runner.
    shared = {"params.py", "layout.py", "errors.py", "runner.py", "live.py", "provenance.py", "__init__.py"}
    files = imported_files(ROOT / "stages" / f"{word}.py", set())
    uncovered = [
        file.relative_to(ROOT).as_posix()
        for file in files
        if file.name not in shared and not any(file == dep or dep in file.parents for dep in deps)
    ]
    assert sorted(uncovered) == []


@pytest.mark.parametrize("word", WORDS)
def test_the_parameters_that_a_stage_reads_are_the_ones_dvc_tracks(word: str) -> None:
    tracked = {entry.split(".")[0] for entry in STAGES[word]["params"]}
    assert parameters_read(ROOT / "ctinterp_dagster" / "pipeline" / f"{word}.py") == tracked


@pytest.mark.parametrize("word", WORDS)
def test_a_stage_says_what_it_is_and_where_dagster_shows_it(word: str) -> None:
    stage = STAGES[word]
    assert stage["desc"].endswith((".", "?"))
    assert set(stage["meta"]["dagster"]) >= {"group", "kinds", "pool"}
    assert len((ROOT / "stages" / f"{word}.py").read_text().splitlines()) <= 15


def test_every_parameter_is_read_somewhere_in_its_stage() -> None:
    unread = []
    for section, field in Params.model_fields.items():
        sources = " ".join(p.read_text() for p in (ROOT / "ctinterp_dagster" / "pipeline").glob("*.py"))
        sources += (ROOT / "dvc.yaml").read_text()  # the launcher
        if f"**params.{section}.model_dump()" not in sources:  # all of them are arguments by name
            unread += [f"{section}.{leaf}" for leaf in field.annotation.model_fields if f".{leaf}" not in sources]
    assert unread == []


def test_no_module_is_over_400_lines() -> None:
    long = [p.name for p in ROOT.glob("ctinterp_dagster/**/*.py") if len(p.read_text().splitlines()) > 400]
    assert long == []


def test_the_definitions_load_without_torch() -> None:
    code = "import sys, ctinterp_dagster.definitions; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"


def test_the_help_loads_without_torch() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom ctinterp_dagster.cli.main import group\n"
        "result = CliRunner().invoke(group, ['--help'])\nprint(result.exit_code, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["0", "False"]
