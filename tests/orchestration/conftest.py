"""A toy DVC project: three stages, one of them twice by foreach, with parameters, a tracked source and a plot."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from ctinterp_dagster.orchestration.dvc import DvcProject
from tests.shell import changed
from tests.shell import shell as run

DVC_YAML = """
stages:
  prepare:
    desc: Doubles every number.
    cmd: python prepare.py
    deps: [prepare.py, data/raw.csv]
    params: [prepare.factor]
    outs: [data/prepared.csv]
    meta: {dagster: {group: data, kinds: [python], owners: [team:toys], tags: {tier: low}, pool: dvc, retries: 1}}
  fit:
    foreach: [a, b]
    do:
      cmd: python fit.py ${item}
      deps: [fit.py, data/prepared.csv]
      params: [fit]
      outs: ["models/${item}.json"]
      meta: {dagster: {group: models}}
  score:
    cmd: python score.py
    deps: [score.py, models/a.json, models/b.json]
    metrics: [scores/metrics.json: {cache: false}]
    plots: [scores/curve.png: {cache: false}]
"""

INGEST = """
stages:
  ingest:
    cmd: python -c "import os; os.makedirs('data/ingest', exist_ok=True)"
    deps: [data/raw]
    outs: [data/ingest: {persist: true}]
    meta: {dagster: {sources: [data/raw]}}
"""

SCRIPTS = {
    "prepare.py": """
import pathlib, yaml
factor = yaml.safe_load(open("params.yaml"))["prepare"]["factor"]
rows = [float(x) * factor for x in pathlib.Path("data/raw.csv").read_text().split()]
pathlib.Path("data/prepared.csv").write_text("\\n".join(map(str, rows)))
""",
    "fit.py": """
import json, pathlib, sys, yaml
params = yaml.safe_load(open("params.yaml"))["fit"]
if params["rate"] <= 0:
    sys.exit(f"ValueError: fit.rate is {params['rate']}, expected a positive number in params.yaml")
rows = [float(x) for x in pathlib.Path("data/prepared.csv").read_text().split()]
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path(f"models/{sys.argv[1]}.json").write_text(json.dumps({"mean": sum(rows) * params["rate"]}))
""",
    "score.py": """
import base64, json, pathlib
means = {n: json.load(open(f"models/{n}.json"))["mean"] for n in "ab"}
pathlib.Path("scores").mkdir(exist_ok=True)
pathlib.Path("scores/metrics.json").write_text(json.dumps({"mean": means, "tiny": 1e-05, "done": True}))
png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
pathlib.Path("scores/curve.png").write_bytes(base64.b64decode(png))
""",
}


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`python` in a stage is the Python of the tests; DVC and Git leave the machine's own settings alone."""
    home = tmp_path_factory.mktemp("home")
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_AUTHOR_NAME": "toy",
        "GIT_AUTHOR_EMAIL": "toy@example.org",
        "GIT_COMMITTER_NAME": "toy",
        "GIT_COMMITTER_EMAIL": "toy@example.org",
    }
    os.environ.pop("DAGSTER_HOME", None)


@pytest.fixture(scope="session")
def fresh_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project, never run."""
    root = tmp_path_factory.mktemp("template") / "toy"
    (root / "data").mkdir(parents=True)
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    (root / "params.yaml").write_text("prepare: {factor: 2}\nfit: {rate: 0.5, tolerance: 0.00001}\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "data" / "raw.csv").write_text("1\n2\n3\n")
    for name, text in SCRIPTS.items():
        (root / name).write_text(text)
    run(root, "dvc", "add", "-q", "data/raw.csv")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "toy: begin")
    return root


@pytest.fixture(scope="session")
def run_template(fresh_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project after `dvc repro`."""
    root = tmp_path_factory.mktemp("run") / "toy"
    shutil.copytree(fresh_template, root)
    run(root, "dvc", "repro", "-q")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "toy: run")
    return root


@pytest.fixture
def fresh(fresh_template: Path, tmp_path: Path) -> DvcProject:
    """A copy of the toy project, never run."""
    shutil.copytree(fresh_template, tmp_path / "toy")
    return DvcProject.at(tmp_path / "toy")


@pytest.fixture
def toy(run_template: Path, tmp_path: Path) -> DvcProject:
    """A copy of the toy project after `dvc repro`."""
    shutil.copytree(run_template, tmp_path / "toy")
    return DvcProject.at(tmp_path / "toy")


@pytest.fixture
def shell() -> Callable[..., str]:
    """Runs a command in a folder, asserts that it succeeds, and returns its output; `dvc` is that of this Python."""
    return run


@pytest.fixture
def edit() -> Callable[[DvcProject, str, str, str], None]:
    """Replaces a text in a file of the project."""

    def replace(project: DvcProject, file: str, old: str, new: str) -> None:
        text = (project.root / file).read_text()
        assert old in text
        (project.root / file).write_text(text.replace(old, new))

    return replace


@pytest.fixture
def talking(toy: DvcProject, edit: Callable[[DvcProject, str, str, str], None]) -> Callable[..., None]:
    """Lets the toy's `fit` speak to Dagster: it runs these lines with `pipes` open, before its own."""

    def begin_with(*lines: str) -> None:
        edit(toy, "dvc.yaml", "meta: {dagster: {group: models}}", "meta: {dagster: {group: models, pipes: true}}")
        block = "".join(f"    {line}\n" for line in lines)
        opened = f"import dagster_pipes\nwith dagster_pipes.open_dagster_pipes() as pipes:\n{block}"
        edit(toy, "fit.py", "import json", f"{opened}import json")

    return begin_with


@pytest.fixture
def dvc_changed() -> Callable[[DvcProject], set[str]]:
    """The stages that `dvc status` lists."""

    def status(project: DvcProject) -> set[str]:
        return changed(project.root)

    return status


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, which a schedule's context needs."""
    folder = tmp_path / "instance"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as persistent:
        yield persistent


@pytest.fixture
def dropped(tmp_path: Path, shell: Callable[..., str]) -> DvcProject:
    """A project with an ingest stage and one scan that it has not seen."""
    root = tmp_path / "drop"
    (root / "data" / "raw").mkdir(parents=True)
    shell(root, "git", "init", "-q")
    shell(root, "dvc", "init", "-q")
    (root / "dvc.yaml").write_text(INGEST)
    (root / "data" / "raw" / "a.nii").write_text("a")
    shell(root, "git", "add", "-A")
    shell(root, "git", "commit", "-qm", "begin")
    return DvcProject.at(root)
