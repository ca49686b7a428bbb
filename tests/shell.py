"""Commands as a user types them, in a folder."""

import contextlib
import io
import subprocess
import sys
import warnings
from pathlib import Path

from dvc.cli import main as dvc_main
from dvc.repo import Repo


def shell(folder: Path, *words: str) -> str:
    """Run a command that is to succeed and give what it printed.

    `dvc` runs in this process, which spares its start; `dagster` is that of this Python.
    """
    if words[0] == "dvc":
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert dvc_main(list(words[1:])) == 0, f"{words}: {printed.getvalue()}"
        return printed.getvalue()
    words = (sys.executable, "-m", *words) if words[0] == "dagster" else words
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def changed(root: Path) -> set[str]:
    """The stages that `dvc status` lists."""
    with Repo(str(root)) as repo:
        listed = {target.rsplit("dvc.yaml:", maxsplit=1)[-1] for target in repo.status()}
    return {target for target in listed if not target.endswith(".dvc")}
