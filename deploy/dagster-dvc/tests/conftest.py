"""A project like DVC's example-get-started: tracked data, prepare, featurize, train, evaluate."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_dvc import DvcProject
from dvc.repo import Repo

DVC_YAML = """
stages:
  prepare:
    desc: Splits the data.
    cmd: python prepare.py
    deps: [prepare.py, data/data.csv]
    params: [prepare]
    outs: [data/prepared.csv]
    meta: {dagster: {table: data/prepared.csv, automation: eager, freshness: {fail_hours: 24, warn_hours: 12}}}
  featurize:
    foreach: [square, root]
    do:
      cmd: python featurize.py ${item}
      deps: [featurize.py, data/prepared.csv]
      params: ["featurize.${item}"]
      outs: ["data/features-${item}.csv"]
      meta: {dagster: {partitions: true, group: features}}
  train:
    matrix: {features: [square, root], seed: [1, 2]}
    cmd: python train.py ${item.features} ${item.seed}
    deps: [train.py, "data/features-${item.features}.csv"]
    outs: ["models/${item.features}-${item.seed}.json"]
    meta: {dagster: {partitions: true, group: models}}
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, models/square-1.json, models/square-2.json, models/root-1.json, models/root-2.json]
    metrics: [eval/metrics.json: {cache: false}]
    meta: {dagster: {checks: [{metric: best, max: 100}]}}
"""
PARAMS = "prepare: {rows: 3}\nfeaturize: {square: {power: 2}, root: {power: 0.5}}\n"
SCRIPTS = {
    "prepare.py": """
import pathlib, yaml
count = yaml.safe_load(open("params.yaml"))["prepare"]["rows"]
lines = pathlib.Path("data/data.csv").read_text().splitlines()[: count + 1]
pathlib.Path("data/prepared.csv").write_text("\\n".join(lines) + "\\n")
""",
    "featurize.py": """
import pathlib, sys, yaml
power = yaml.safe_load(open("params.yaml"))["featurize"][sys.argv[1]]["power"]
rows = [line.split(",") for line in pathlib.Path("data/prepared.csv").read_text().split()[1:]]
pathlib.Path(f"data/features-{sys.argv[1]}.csv").write_text("\\n".join(str(float(v) ** power) for _, v in rows))
""",
    "train.py": """
import json, pathlib, sys
values = [float(line) for line in pathlib.Path(f"data/features-{sys.argv[1]}.csv").read_text().split()]
pathlib.Path("models").mkdir(exist_ok=True)
pathlib.Path(f"models/{sys.argv[1]}-{sys.argv[2]}.json").write_text(json.dumps(sum(values) * int(sys.argv[2])))
""",
    "evaluate.py": """
import json, pathlib
pathlib.Path("eval").mkdir(exist_ok=True)
best = min(json.loads(file.read_text()) for file in pathlib.Path("models").glob("*.json"))
pathlib.Path("eval/metrics.json").write_text(json.dumps({"best": best}))
""",
}

Shell = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`python` in a stage is the Python of the tests; DVC and Git leave the machine's own settings alone."""
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").write_text("[user]\nname = t\nemail = t@example.org\n[init]\ndefaultBranch = main\n")
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "DG_CLI_CONFIG": str(home / "dg.toml"),
    }
    os.environ.pop("DAGSTER_HOME", None)
    (home / "dg.toml").write_text("[cli.telemetry]\nenabled = false\n")


def _shell(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def shell() -> Shell:
    """Runs a command in a folder, asserts that it succeeds, and returns what it printed."""
    return _shell


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `dvc repro` and `dvc push`, committed."""
    root = tmp_path_factory.mktemp("template") / "started"
    (root / "data").mkdir(parents=True)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(PARAMS)
    (root / "data" / "data.csv").write_text("id,value\n1,1\n2,4\n3,9\n4,16\n")
    for name, text in SCRIPTS.items():
        (root / name).write_text(text)
    store = root.parent / "store"
    for command in (
        "git init -q",
        "dvc init -q",
        f"dvc remote add -q -d store {store}",
        "dvc add -q data/data.csv",
        "dvc repro -q",
        "dvc push -q",
        "git add -A",
        "git commit -qm begin",
    ):
        _shell(root, *command.split())
    return root


@pytest.fixture
def started(template: Path, tmp_path: Path) -> DvcProject:
    """A copy of the project."""
    shutil.copytree(template, tmp_path / "started")
    return DvcProject.at(tmp_path / "started")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def dvc_changed() -> Callable[[DvcProject], set[str]]:
    """The stages that `dvc status` lists."""

    def status(project: DvcProject) -> set[str]:
        with Repo(str(project.root)) as repo:
            listed = {target.rsplit("dvc.yaml:", maxsplit=1)[-1] for target in repo.status()}
        return {target for target in listed if not target.endswith(".dvc")}

    return status
