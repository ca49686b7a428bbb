"""A small DVC project whose stage makes one file a scan, and the servers that a deployment has."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

MAKE = """
import pathlib
for number in range(3):
    scan = pathlib.Path(f"data/ingest/volumes/scan-{number}.nii")
    scan.parent.mkdir(parents=True, exist_ok=True)
    scan.write_text(f"voxels of scan {number}")
"""
STAGES = """
stages:
  ingest:
    cmd: python make.py
    deps: [make.py]
    outs: [data/ingest]
"""

Shell = Callable[..., str]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a command in a folder with nothing of the user's settings, asserts success, returns what it printed."""

    def run(root: Path, *command: str, **variables: str) -> str:
        environment = os.environ | surroundings(tmp_path) | variables
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


def surroundings(folder: Path) -> Mapping[str, str]:
    """The environment variables of a test: this Python first, DVC and Git without settings of the machine."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "global"),
        "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


@pytest.fixture
def project(tmp_path: Path, shell: Shell) -> Path:
    """The project, run and committed."""
    root = tmp_path / "project"
    root.mkdir()
    shell(root, "git", "init", "--quiet")
    shell(root, "dvc", "init", "--quiet")
    (root / "make.py").write_text(MAKE)
    (root / "dvc.yaml").write_text(STAGES)
    shell(root, "dvc", "repro", "--quiet")
    shell(root, "git", "add", "--all")
    shell(root, "git", "commit", "--quiet", "--message", "begin")
    return root
