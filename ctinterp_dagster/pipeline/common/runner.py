"""What every stage script does: read the parameters, fix the threads, run, and fail in one line."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ctinterp_dagster import LOADED_NS, telemetry
from ctinterp_dagster.errors import CtinterpError, disk_problem
from ctinterp_dagster.import_closure import PACKAGE
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Base, Params, load_params
from ctinterp_dagster.provenance import provenance
from ctinterp_dagster.records import write_json
from ctinterp_dagster.stage_inputs import unmoved

logger = logging.getLogger(__name__)

Run = Callable[[Params, Layout], Mapping[str, float]]


def run_stage(run: Run) -> None:
    """Run a stage from the project's root, the current folder.

    The stage's numbers go to the log; exits 1 with one line on an error of ours, or of the disk.

    Args:
        run: the function of a stage's module; the module's name is the stage.

    Raises:
        OSError: one that is no problem of the disk.
        RuntimeError: torch's, the same.
        SafetensorError: the same.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    start = time.perf_counter()
    word = run.__module__.rpartition(".")[2]
    try:
        layout = Layout(Path())
        assert_own_code(layout, word)
        with alone(layout, word), unmoved(layout, word, LOADED_NS), telemetry.session():
            params = load_params(layout.params)
            make_deterministic(params.base)
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
    text = " ".join(f"{name}={value:.6g}" for name, value in numbers.items())
    logger.info("stage=%s done seconds=%.1f %s", word, time.perf_counter() - start, text)


def assert_own_code(layout: Layout, word: str) -> None:
    """Refuse the code of another checkout, for which an editable install may stand: DVC would record this one's.

    `python -m` finds the code of the current folder first; `python stages/<word>.py` does not look there.

    Args:
        layout: where things are.
        word: the stage.

    Raises:
        CtinterpError: the project has code, and what runs is not that.
    """
    own = layout.root.resolve() / PACKAGE.name
    if own.exists() and own != PACKAGE.resolve():
        raise CtinterpError(f"{PACKAGE} runs here, not the code of this checkout: run `python -m stages.{word}`")


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
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.info("waiting: another process runs %s", word)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def device_name(wanted: str) -> str:
    """The name of the GPU that computes, or `cpu`.

    Args:
        wanted: `auto`, `cpu` or `cuda`.

    Returns:
        The card's name as its driver tells it, or `cpu`.
    """
    return torch.cuda.get_device_name() if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def make_deterministic(base: Base) -> None:
    """Make torch repeat its results to the bit: fixed threads, deterministic algorithms.

    Args:
        base: what all stages share.

    Source: the variable is cuBLAS's, without which torch refuses matrix products on a GPU (CUDA's documentation,
        cuBLAS, results reproducibility).
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if base.repeatable and (found := torch.backends.cpu.get_cpu_capability()) != "AVX2":
        logger.warning("base.repeatable: torch computes with %s here, not AVX2, and gives other last digits", found)
    torch.set_num_threads(base.threads)
    torch.use_deterministic_algorithms(mode=True)
