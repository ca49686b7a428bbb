"""Inputs that move: a stage answers for what it read, and DVC hashes that when the stage has ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from ctinterp_dagster.errors import MovedInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import JOURNAL, MANIFEST

WITHDRAWN = "withdrawn.txt"
"""A file that makes a stage's output another one for DVC, so that the next `dvc repro` runs the stage."""
POLL_S = 0.02


@contextmanager
def unmoved(layout: Layout, word: str, loaded_ns: int) -> Iterator[None]:
    """Refuse what a stage made while its data, parameters or code moved.

    A file has moved if its size, inode or time is another one. What moves after the block, while DVC hashes, is found
    by `withdraw_if_moved`.

    Args:
        layout: the project.
        word: the stage.
        loaded_ns: when this process began to load the code (epoch, ns); code that was written later has moved.

    Raises:
        MovedInputError: what moved; DVC then records nothing, and the next `dvc repro` runs the stage again.
    """
    if os.environ.get("RANK", "0") != "0" or not layout.pipeline.exists():
        yield
        return
    before = inputs_of(layout, word)
    for output in filter(Path.is_dir, outputs_of(layout, word)):
        (output / WITHDRAWN).unlink(missing_ok=True)
    code = {path: (layout.root / path).stat().st_ctime_ns for path in before if path.endswith(".py")}
    now_ns = time.time_ns()  # a clock that went back since the checkout was made has all code in its future
    assert_still([path for path, ctime_ns in code.items() if loaded_ns < ctime_ns <= now_ns], word)
    yield
    moved = differences(before, after := inputs_of(layout, word))
    if any(path.endswith(".py") for path in moved):  # a case may be known by code that did not make it
        for name in (MANIFEST, JOURNAL):
            (layout.root / "data" / word / name).unlink(missing_ok=True)
    assert_still(moved, word)
    if being_recorded(layout, outputs_of(layout, word)):
        watcher = [sys.executable, "-m", __spec__.name, word]
        process = subprocess.Popen(  # noqa: S603 (no shell; fixed words)
            watcher, cwd=layout.root, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdin
        with process.stdin:
            json.dump(after, process.stdin)


def withdraw_if_moved(layout: Layout, word: str, seen: Mapping[str, Any]) -> list[str]:
    """Wait until DVC has recorded a stage; if its inputs moved meanwhile, make its outputs such as DVC does not know.

    DVC may then have hashed other inputs than the stage read. It finds a changed output at its next look, and runs the
    stage again.

    Args:
        layout: the project.
        word: the stage.
        seen: its inputs when it ended.

    Returns:
        What moved.
    """
    outputs = outputs_of(layout, word)
    while being_recorded(layout, outputs):
        time.sleep(POLL_S)
    moved = differences(seen, json.loads(json.dumps(inputs_of(layout, word))))
    for output in outputs if moved else ():
        if output.is_dir():
            (output / WITHDRAWN).touch()
        else:
            output.unlink(missing_ok=True)
    return moved


def being_recorded(layout: Layout, outputs: Sequence[Path]) -> bool:
    """Whether a living DVC holds an output of a stage for writing: it runs the stage, or hashes what that used.

    Args:
        layout: where things are.
        outputs: files and folders of the stage.

    Returns:
        False also where no DVC has a table of its locks.

    Source: DVC 3.67, `dvc/rwlock.py`: a table of processes by path, rewritten in place.
    """
    table = layout.root / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(table.read_text(encoding="utf-8")).get("write", {})
    except FileNotFoundError:
        return False
    except ValueError:  # half written
        return True
    ours = {str(output.absolute()) for output in outputs}
    return any(path in ours and psutil.pid_exists(holder["pid"]) for path, holder in held.items())


def outputs_of(layout: Layout, word: str) -> list[Path]:
    """The files and folders that dvc.yaml says a stage makes, without metrics and plots."""
    outs = stage_of(layout, word).get("outs", [])
    return [layout.root / (out if isinstance(out, str) else next(iter(out))) for out in outs]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names whose values are not the same, sorted."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def assert_still(moved: Sequence[str], word: str) -> None:
    """Refuse inputs that have moved; names below data/raw, which may be those of persons, are not told.

    Args:
        moved: paths, relative to the project's root.
        word: the stage.

    Raises:
        MovedInputError: there are any.
    """
    named = sorted({"data/raw" if path.startswith("data/raw/") else path for path in moved})
    if named:
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        raise MovedInputError(
            f"{', '.join(named[:3])}{more} changed while {word} ran, which read what was there before: run `dvc repro` "
            "again"
        )


def stage_of(layout: Layout, word: str) -> Mapping[str, Any]:
    """What dvc.yaml says of a stage."""
    stage: Mapping[str, Any] = yaml.safe_load(layout.pipeline.read_text(encoding="utf-8"))["stages"][word]
    return stage


def inputs_of(layout: Layout, word: str) -> dict[str, Any]:
    """What dvc.yaml says that a stage reads: each file's size, inode and time, each section's parameters."""
    stage = stage_of(layout, word)
    values = yaml.safe_load(layout.params.read_text(encoding="utf-8"))
    seen: dict[str, Any] = {f"params.yaml: {section}": values.get(section) for section in stage.get("params", [])}
    for dep in stage["deps"]:
        for path in files_below(layout.root / dep):
            with suppress(FileNotFoundError):  # removed since it was listed
                status = path.stat()
                name = path.relative_to(layout.root).as_posix()
                seen[name] = [status.st_size, status.st_ino, status.st_mtime_ns]
    return seen


def files_below(path: Path) -> Iterator[Path]:
    """A file, or the files below a folder that .dvcignore does not leave out."""
    if path.is_file():
        yield path
    for folder, names, entries in os.walk(path):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(folder, entry) for entry in entries if not entry.startswith("."))


if __name__ == "__main__":
    layout = Layout(Path())
    if withdraw_if_moved(layout, word := sys.argv[1], json.load(sys.stdin)):
        print(f"inputs of {word} moved while DVC recorded it: run `dvc repro` again", file=sys.stderr)
