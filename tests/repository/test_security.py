"""Nothing that ctinterp reads is run, no secret is in the repository, and the web UI is for this machine only."""

import ast
import os
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ctinterp_dagster.errors import CtinterpError
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.model.autoencoder.weights import read_weights
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.training import checkpoint

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("ctinterp_dagster/**/*.py"), *ROOT.glob("stages/*.py")])
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
HARMLESS = {"pickle.UnpicklingError"}  # an error that is caught
RUNNERS = {"eval", "exec", "compile", "__import__"}
SUFFIXES = (".pt", ".safetensors", ".nii", ".nii.gz", ".mha", ".nrrd", ".dcm", ".zip")
READERS: list[tuple[Callable[[Path], object], str, str]] = [
    *((read_weights, suffix, "cannot be read safely as weights") for suffix in SUFFIXES),
    *((load_checkpoint, suffix, "is not a whole safetensors file") for suffix in SUFFIXES),
    *((read_scan, suffix, "no known format|no readable|cannot be unpacked") for suffix in SUFFIXES),
    (checkpoint._read, ".pt", "is not a training checkpoint"),  # its name is never the user's
]


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {word.arg: ast.unparse(word.value) for word in call.keywords}


def dangers(tree: ast.AST) -> list[str]:
    """What a source does that could run the content of a file or of a string."""
    found = []
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in UNPICKLERS:
            found += [ast.unparse(node)] if ast.unparse(node) not in HARMLESS else []
        elif isinstance(node, ast.ImportFrom) and node.module in UNPICKLERS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            unsafe = (
                name in RUNNERS
                or name in {"os.system", "os.popen", "yaml.unsafe_load", "pd.read_pickle"}
                or (name == "yaml.load" and "yaml" in imported)  # PyYAML's; an object of ruamel's YAML() is safe
                or (name == "torch.load" and keywords(node).get("weights_only") != "True")
                or (name == "YAML" and keywords(node).get("typ", "'safe'") != "'safe'")
                or keywords(node).get("allow_pickle", "False") != "False"
                or keywords(node).get("shell", "False") != "False"
            )
            found += [ast.unparse(node)] if unsafe else []
    return found


def test_no_source_unpickles_or_runs_what_it_read() -> None:
    assert len(SOURCES) > 50
    found = {path.name: dangers(ast.parse(path.read_text())) for path in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(handle)",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "import yaml\nyaml.load(text)",
        "YAML(typ='unsafe')",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert dangers(ast.parse(source)) != []


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(("read", "suffix", "said"), READERS)
def test_a_file_that_would_run_code_is_refused_by_every_reader(
    read: Callable[[Path], object], suffix: str, said: str, tmp_path: Path
) -> None:
    trace = tmp_path / "it was run"
    hostile = tmp_path / f"hostile{suffix}"
    hostile.write_bytes(pickle.dumps({"state_dict": Payload(trace)}, protocol=2))
    with pytest.raises(CtinterpError, match=said):
        read(hostile)
    assert not trace.exists()
    pickle.loads(hostile.read_bytes())
    assert trace.exists()  # the file is what it claims to be


def test_the_web_ui_is_bound_to_this_machine() -> None:
    commands = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.strip().startswith("dg dev")]
    assert commands
    assert all("--host 127.0.0.1" in command for command in commands)


def test_no_key_or_password_is_in_the_repository() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    secret = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{36}")
    files = [ROOT / name for name in names.split("\0") if name]
    drawn = "niivue.umd.js"  # whose shaders and fonts are base64 that may spell anything; it is NiiVue's, unchanged
    text = [path for path in files if path.is_file() and path.suffix != ".safetensors" and path.name != drawn]
    assert [path.name for path in text if secret.search(path.read_text(errors="replace"))] == []
