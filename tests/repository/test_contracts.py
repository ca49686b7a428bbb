"""One word for each step, the same everywhere; what a stage imports and reads is what DVC knows of."""

import ast
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from pydantic import BaseModel

from ctinterp_dagster import params
from ctinterp_dagster.import_closure import NEUTRAL, PACKAGE, imported_files
from ctinterp_dagster.params import Params
from tests.repository.reading import Reader, sections_in, unread

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
WORDS = [
    "ingest", "thicken", "autoencoder", "encode", "expect", "train", "latent", "generate", "evaluate", "promote",
    "report",
]  # fmt: skip
RELEASED = "ctinterp_dagster/released/"  # a model, which is data
SECTIONS = {name: kind for name, kind in vars(params).items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def code_of(word: str) -> set[Path]:
    """The files that a stage's script imports, and the script."""
    return imported_files(ROOT / "stages" / f"{word}.py")


def pipeline_of(word: str) -> list[Path]:
    """Those of them that read parameters: what every stage runs in reads none but `base`."""
    files = imported_files(PACKAGE / "pipeline" / f"{word}.py")
    return [file for file in files if PACKAGE / "pipeline" in file.parents]


def covering(files: set[Path]) -> set[str]:
    """Files and folders that hold these files: a folder where more than half of its own is among them."""
    found = set()
    for file in files:
        best = file
        for folder in file.parents:
            own = {path for path in folder.rglob("*.py") if path.stat().st_size} if PACKAGE in folder.parents else set()
            if 2 * len(own & files) > len(own):
                best = folder
        found.add(best.relative_to(ROOT).as_posix())
    return found


def depend_on(file: str) -> set[str]:
    """The stages that an edit of a file of the package makes stale by itself."""
    path = PACKAGE / file
    assert path.exists()
    deps = {word: {ROOT / dep for dep in stage["deps"]} for word, stage in STAGES.items()}
    return {word for word, known in deps.items() if known & {path, *path.parents}}


def test_a_stage_has_one_name_everywhere() -> None:
    assert list(STAGES) == WORDS
    assert sorted(p.stem for p in (ROOT / "stages").glob("*.py")) == sorted(WORDS)
    for word, stage in STAGES.items():
        assert stage["cmd"] in {f"python -m stages.{word}", f"${{loop.launcher}} -m stages.{word}"}
    assert sorted(p.stem for p in (PACKAGE / "pipeline").glob("*.py") if p.stat().st_size) == sorted(WORDS)
    assert set(Params.model_fields) == {"base", "loop", *WORDS}


@pytest.mark.parametrize("word", WORDS)
def test_deps_are_the_code_that_a_stage_imports_and_no_other(word: str) -> None:
    """A folder stands for its files where more than half of it is imported."""
    named = {dep for dep in STAGES[word]["deps"] if not dep.startswith(("data/", "reports/", RELEASED))}
    assert named == covering(code_of(word))


def loaded_by(word: str) -> set[Path]:
    """The files of the package that a stage's script loads; neither it nor what it would start again is run."""

    def own() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE.name}

    before = own()
    for name in before:
        del sys.modules[name]
    try:
        for module, function in (("cpu_instructions", "limit_instructions"), ("runner", "run_stage")):
            setattr(import_module(f"{PACKAGE.name}.pipeline.common.{module}"), function, lambda *_: None)
        runpy.run_path(str(ROOT / "stages" / f"{word}.py"), run_name="__main__")
        return {Path(str(module.__file__)) for module in own().values()}
    finally:
        for name in own():
            del sys.modules[name]
        sys.modules.update(before)


@pytest.mark.parametrize("word", WORDS)
def test_what_a_stage_imports_is_what_python_says_that_it_imports(word: str) -> None:
    """Every module of the package that is loaded by a stage's script is in what `imported_files` finds."""
    real = {file for file in loaded_by(word) - {PACKAGE / name for name in NEUTRAL} if file.stat().st_size}
    assert len(real) > 10
    assert real <= code_of(word)


def test_an_edit_makes_stale_what_runs_it_and_nothing_else() -> None:
    trainings = {"autoencoder", "expect", "train", "latent"}
    assert depend_on("model/autoencoder/fast_layers.py").isdisjoint({"ingest", "thicken", "expect", "train", "report"})
    assert depend_on("model/autoencoder/network.py") & trainings == {"autoencoder", "latent"}
    assert depend_on("nullspace/diffusion.py").isdisjoint({"ingest", "thicken", "autoencoder", "latent", "report"})
    assert depend_on("physics/operator.py") & {"ingest", "thicken", "autoencoder"} == {"thicken"}
    assert depend_on("scan/io/dicom.py") == set(WORDS)
    assert depend_on("training/loop.py") == trainings
    for file in ("pipeline/train.py", "nullspace/objective.py", "nullspace/slabs.py", "nullspace/unet.py"):
        assert "train" in depend_on(file)
        assert "latent" not in depend_on(file)
    for file in ("pipeline/latent.py", "latent/patches.py", "latent/objective.py", "latent/diffusion.py"):
        assert depend_on(file) & trainings == {"latent"}
    for word, other in (("train", "latent"), ("latent", "train")):
        assert other not in STAGES[word]["params"]
        assert f"data/{other}" not in STAGES[word]["deps"]


@pytest.mark.parametrize("word", WORDS)
def test_the_parameters_that_a_stage_reads_are_the_ones_dvc_tracks(word: str) -> None:
    read = {name for module in pipeline_of(word) for kind, name in Reader(module, SECTIONS).reads() if kind is Params}
    everything = set(Params.model_fields) if "model_dump" in read else set()  # the page shows all of them
    assert everything or read == set(STAGES[word]["params"])
    assert set(STAGES[word]["params"]) >= everything


@pytest.mark.parametrize("word", WORDS)
def test_every_parameter_is_read_in_its_stage(word: str) -> None:
    (section,) = sections_in(Params.model_fields[word].annotation)
    missed = unread(section, pipeline_of(word), SECTIONS)
    assert [path for path in missed if f"${{{word}.{path}}}" not in STAGES[word].get("cmd", "")] == []


def test_the_parameters_that_all_share_are_read_by_stages() -> None:
    files = {file for word in WORDS for file in code_of(word) if PACKAGE / "pipeline" in file.parents}
    assert unread(params.Base, files, SECTIONS) == []
    commands = " ".join(STAGES[word]["cmd"] for word in WORDS)
    assert [path for path in unread(params.Loop, files, SECTIONS) if f"${{loop.{path}}}" not in commands] == []


@pytest.mark.parametrize("word", WORDS)
def test_a_stage_says_what_it_is_and_where_dagster_shows_it(word: str) -> None:
    stage = STAGES[word]
    assert stage["desc"].endswith((".", "?"))
    assert set(stage["meta"]["dagster"]) >= {"group", "kinds", "pool"}
    assert len((ROOT / "stages" / f"{word}.py").read_text().splitlines()) <= 15


def test_no_module_is_over_400_lines() -> None:
    modules = [path for part in ("ctinterp_dagster", "tests", "benchmarks") for path in (ROOT / part).glob("**/*.py")]
    assert [path.name for path in modules if len(path.read_text().splitlines()) > 400] == []


def test_a_test_lies_where_what_it_tests_lies() -> None:
    tests = ROOT / "tests"
    of_no_module = {"benchmarks", "deploy", "faults", "repository"}
    files = [path.relative_to(tests) for path in tests.glob("**/test_*.py")]
    loose = {path.stem.removeprefix("test_") for path in files if len(path.parts) == 1}
    assert loose <= {path.stem for path in PACKAGE.glob("*.py")}
    folders = {path.parent for path in files if path.parts[0] not in of_no_module}
    assert [folder for folder in folders if not (PACKAGE / folder).is_dir()] == []


@cache
def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods of a module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_of_the_package_is_over_60_lines() -> None:
    found = [(path.name, f) for path in PACKAGE.glob("**/*.py") for f in functions(path)]
    assert [(name, f.name) for name, f in found if f.end_lineno and f.end_lineno - f.lineno >= 60] == []


def longest_tuple(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many values the longest tuple of its result has by its annotation; 0 where there is none."""
    parts = [node for node in ast.walk(function.returns or ast.Tuple([])) if isinstance(node, ast.Subscript)]
    tuples = [node.slice for node in parts if ast.unparse(node.value) == "tuple" and isinstance(node.slice, ast.Tuple)]
    return max((len(node.elts) for node in tuples), default=0)


def test_results_of_three_values_and_more_have_names() -> None:
    found = [(path.name, f) for path in PACKAGE.glob("**/*.py") for f in functions(path)]
    given_by_click = {"resolve_command"}
    assert [(name, f.name) for name, f in found if longest_tuple(f) > 2 and f.name not in given_by_click] == []


def lacks_arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether its docstring has sections, and none of its arguments."""
    docstring = ast.get_docstring(function) or ""
    sections = set(re.findall(r"^ *([A-Z][a-z]+):(?: |$)", docstring, re.MULTILINE))
    names = [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    named = [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]
    return bool(named and sections & {"Raises", "Returns", "Yields", "Source"} and "Args" not in sections)


def test_a_docstring_with_sections_has_one_of_its_arguments() -> None:
    modules = [path for part in ("ctinterp_dagster", "stages") for path in (ROOT / part).glob("**/*.py")]
    found = [(path, node) for path in modules for node in functions(path)]
    assert [f"{path}:{node.lineno} {node.name}" for path, node in found if lacks_arguments(node)] == []


def test_no_entry_of_a_docstring_only_points_elsewhere() -> None:
    modules = [path for part in ("ctinterp_dagster", "stages", "benchmarks") for path in (ROOT / part).glob("**/*.py")]
    lines = [(path, line) for path in modules for line in path.read_text().splitlines()]
    points = re.compile(r"^ +\w+(, \w+)*: (see|as) |[;,:] see `(?!ctinterp )")
    assert [f"{path.name}: {line}" for path, line in lines if points.search(line)] == []


def test_the_definitions_load_without_torch() -> None:
    code = "import sys, ctinterp_dagster.definitions; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"


def test_help_and_mistakes_in_options_load_nothing_heavy() -> None:
    code = """
import sys
import click
from click.testing import CliRunner
from ctinterp_dagster.cli.main import group

def ask(command, *words):
    result = CliRunner().invoke(group, [*words, "--help"])
    assert result.exit_code == 0, result.output
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                ask(command.get_command(context, name), *words, name)

ask(group)
assert CliRunner().invoke(group, ["interpolate", "a.nii", "-o", "b.nii", "--spacing", "0"]).exit_code == 2
assert CliRunner().invoke(group, ["evaluate", "a.nii", "--methods", "magic"]).exit_code == 2
together = ["interpolate", "a.nii", "-o", "b.nii", "--spacing", "1", "--factor", "2"]
assert CliRunner().invoke(group, together).exit_code == 2
assert CliRunner().invoke(group, ["evaluate", "a.nii", "--protocol", "rplhr"]).exit_code == 2
heavy = ("torch", "SimpleITK", "pandas", "scipy", "pydicom", "nibabel", "skimage")
print([name for name in heavy if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["[]"]
