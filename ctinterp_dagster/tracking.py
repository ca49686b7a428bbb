"""data/raw belongs to DVC: `data/raw.dvc` says which scans there are, and Git knows that file and no scan."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from ctinterp_dagster.errors import CtinterpError, MissingInputError
from ctinterp_dagster.layout import Layout


class Listing(NamedTuple):
    """How many files a folder holds, and their bytes together."""

    files: int
    size: int


def in_dvc(layout: Layout) -> bool:
    """Whether the project is one of DVC's."""
    return (layout.root / ".dvc").exists()


def track(layout: Layout) -> None:
    """Tell DVC what data/raw holds (`dvc add`) and Git of `data/raw.dvc`; files that DVC knows are not read again.

    Nothing is done where there is no scan yet. The files stay those that they are: where DVC may only link, and cannot,
    it would take them away and say that all went well (DVC 3.67).

    The file with which Git keeps an empty data/raw is taken out: DVC tracks no folder that Git has a file of.

    Args:
        layout: where things are.

    Raises:
        MissingInputError: a link leads nowhere.
        CtinterpError: DVC or Git failed, in its own words.
    """
    if not in_dvc(layout) or not (recorded(layout) or listing(layout.raw).files):
        return
    if lost := [path for path in layout.raw.rglob("*") if path.is_symlink() and not path.exists()]:
        raise MissingInputError(
            f"{len(lost)} links in data/raw lead nowhere (`find data/raw -xtype l` names them): bring back what they "
            "point to, or remove them"
        )
    _run(layout, "git", "rm", "--quiet", "--force", "--ignore-unmatch", "--", "data/raw/.gitignore")
    layout.raw.mkdir(parents=True, exist_ok=True)
    _run(layout, sys.executable, "-m", "dvc", "--wait-for-lock", "add", "--no-relink", "data/raw")
    _run(layout, "git", "add", "--", "data/raw.dvc")


def recorded(layout: Layout) -> Listing | None:
    """What `data/raw.dvc` says.

    Args:
        layout: where things are.

    Returns:
        How many files and bytes there are; None where no scan was ever added.

    Raises:
        MissingInputError: the file is damaged.
    """
    path = layout.raw.with_suffix(".dvc")
    if not path.exists():
        return None
    try:
        (out,) = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]
        if (files := out.get("files")) is not None:  # as pushing to a remote that keeps versions leaves it
            return Listing(len(files), sum(file["size"] for file in files))
        return Listing(out["nfiles"], out["size"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise MissingInputError(f"{path} is damaged: `git checkout {path}` brings it back") from error


def listing(raw: Path) -> Listing:
    """What data/raw holds, without what .dvcignore leaves out: names that begin with a dot."""
    files = size = 0
    for folder, names, entries in os.walk(raw):
        names[:] = [name for name in names if not name.startswith(".")]
        for entry in entries:
            if not entry.startswith("."):
                files += 1
                path = Path(folder, entry)
                size += (path.stat() if path.exists() else path.lstat()).st_size
    return Listing(files, size)


def assert_tracked(layout: Layout) -> None:
    """Refuse scans that DVC does not know: a copy of the project would run without them.

    Args:
        layout: where things are.

    Raises:
        MissingInputError: data/raw is not what `data/raw.dvc` says.
    """
    if not in_dvc(layout):
        return
    known, here = recorded(layout), listing(layout.raw)
    if known and not here.files:
        raise MissingInputError(
            "data/raw is empty, though scans were added (data/raw.dvc): mount it, or bring them back with "
            "`git checkout data/raw.dvc` and `dvc pull`"
        )
    if here != (known or Listing(0, 0)):
        kept = f"{known.files} of {known.size}" if known else "none"
        raise MissingInputError(
            f"data/raw holds {here.files} files of {here.size} bytes, data/raw.dvc knows {kept}: run `ctinterp scans "
            "add`, or materialize data/raw in Dagster"
        )


def _run(layout: Layout, *command: str) -> None:
    done = subprocess.run(  # noqa: S603 (no shell; fixed words)
        command, cwd=layout.root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        output = done.stderr or done.stdout
        errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]  # DVC's; a line of thanks follows
        output = " ".join(" ".join(errors or [output]).split())
        raise CtinterpError(f"`{' '.join(command).replace(f'{sys.executable} -m ', '')}` failed: {output}")
