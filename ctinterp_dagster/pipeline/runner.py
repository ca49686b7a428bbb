"""What every stage script does: read the parameters, fix the threads, run, and fail in one line."""

import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError

from ctinterp_dagster import LOADED_NS, live
from ctinterp_dagster.errors import CtinterpError, MovedInputError, disk_problem
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, load_params
from ctinterp_dagster.provenance import provenance
from ctinterp_dagster.records import JOURNAL, MANIFEST, write_json

logger = logging.getLogger(__name__)

Run = Callable[[Params, Layout], Mapping[str, float]]


def run_stage(run: Run) -> None:
    """Run a stage from the project's root, the current folder.

    The stage's numbers go to the log; exits 1 with one line on an error of ours.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    start = time.perf_counter()
    word = run.__module__.rpartition(".")[2]
    try:
        layout = Layout(Path())
        with alone(layout, word), unmoved(layout, word), live.session():
            params = load_params(layout.params)
            make_deterministic(params.base.threads)
            numbers = run(params, layout)
            record = provenance(layout.root, device_name(params.base.device))
            write_json(layout.report(word) / "provenance.json", record)
    except CtinterpError as error:
        logger.error("error: %s", error)  # noqa: TRY400 (one line, no traceback)
        sys.exit(1)
    except (OSError, RuntimeError, SafetensorError) as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        logger.error("error: %s", problem)  # noqa: TRY400 (one line, no traceback)
        sys.exit(1)
    shown = " ".join(f"{name}={value:.6g}" for name, value in numbers.items())
    logger.info("done seconds=%.1f %s", time.perf_counter() - start, shown)


@contextmanager
def alone(layout: Layout, word: str) -> Iterator[None]:
    """Hold the stage's lock, which the system gives back however the process ends.

    DVC's own lock dies with DVC: where DVC alone was killed, its stage goes on, and a second one would write the same
    files. The other processes of a launcher (`RANK` above 0) come with the first one and take no lock.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    path = layout.root / "data" / f".{word}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting: another process runs %s", word)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def unmoved(layout: Layout, word: str) -> Iterator[None]:
    """Refuse what a stage made while its data, parameters or code moved: DVC hashes them when the stage has ended.

    A file has moved if its size, inode or time is another one. Code has, too, if it was written after this process
    began to load the package.

    Raises:
        MovedInputError: what moved; DVC then records nothing, and the next `dvc repro` runs the stage again.
    """
    if os.environ.get("RANK", "0") != "0" or not layout.pipeline.exists():
        yield
        return
    before = inputs_of(layout, word)
    edited = [path for path in before if path.endswith(".py") and (layout.root / path).stat().st_ctime_ns > LOADED_NS]
    assert_still(edited, word)
    yield
    after = inputs_of(layout, word)
    moved = sorted(path for path in before | after if before.get(path) != after.get(path))
    if any(path.endswith(".py") for path in moved):  # a case may be known by code that did not make it
        for name in (MANIFEST, JOURNAL):
            (layout.root / "data" / word / name).unlink(missing_ok=True)
    assert_still(moved, word)


def assert_still(moved: Sequence[str], word: str) -> None:
    """Refuse inputs that have moved; names below data/raw, which may be those of persons, are not told.

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


def inputs_of(layout: Layout, word: str) -> dict[str, Any]:
    """What dvc.yaml says that a stage reads: each file's size, inode and time, each section's parameters."""
    stage = yaml.safe_load(layout.pipeline.read_text(encoding="utf-8"))["stages"][word]
    values = yaml.safe_load(layout.params.read_text(encoding="utf-8"))
    seen: dict[str, Any] = {f"params.yaml: {section}": values.get(section) for section in stage.get("params", [])}
    for dep in stage["deps"]:
        for path in read_files(layout.root / dep):
            with suppress(FileNotFoundError):  # removed since it was listed
                status = path.stat()
                name = path.relative_to(layout.root).as_posix()
                seen[name] = (status.st_size, status.st_ino, status.st_mtime_ns)
    return seen


def read_files(path: Path) -> Iterator[Path]:
    """A file, or the files below a folder that .dvcignore does not leave out."""
    if path.is_file():
        yield path
    for folder, names, entries in os.walk(path):
        names[:] = [name for name in names if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(folder, entry) for entry in entries if not entry.startswith("."))


def device_name(wanted: str) -> str:
    """The name of the GPU that computes, or `cpu`."""
    return torch.cuda.get_device_name() if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def make_deterministic(threads: int) -> None:
    """Make torch repeat its results to the bit: fixed threads, deterministic algorithms.

    Source: the variable is cuBLAS's, without which torch refuses matrix products on a GPU (CUDA's documentation,
        cuBLAS, results reproducibility).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
