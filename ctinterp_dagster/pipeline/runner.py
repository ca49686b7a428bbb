"""What every stage script does: read the parameters, fix the threads, run, and fail in one line."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ctinterp_dagster import live
from ctinterp_dagster.errors import CtinterpError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, load_params

logger = logging.getLogger(__name__)

Run = Callable[[Params, Layout], Mapping[str, float]]


def run_stage(run: Run) -> None:
    """Run a stage from the project's root, the current folder.

    The stage's numbers go to the log; exits 1 with one line on an error of ours.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    start = time.perf_counter()
    try:
        layout = Layout(Path())
        params = load_params(layout.params)
        make_deterministic(params.base.threads)
        with live.session():
            numbers = run(params, layout)
    except CtinterpError as error:
        logger.error("error: %s", error)  # noqa: TRY400 (one line, no traceback)
        sys.exit(1)
    shown = " ".join(f"{name}={value:.6g}" for name, value in numbers.items())
    logger.info("done seconds=%.1f %s", time.perf_counter() - start, shown)


def make_deterministic(threads: int) -> None:
    """Make torch repeat its results to the bit: fixed threads, deterministic algorithms."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
