"""SIGKILL at random moments of a smoke run, in every stage, of DVC, of the stage, or of both."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.checkout import STAGES, Checkout

ROUNDS = 4  # of one kill a stage: 36 kills in all
VICTIMS = ("both", "dvc", "stage")
START_S = 4.0  # a stage's imports, which its own log does not count


def stage_seconds(log: str) -> dict[str, float]:
    """How long each stage took in a run, by the lines that it printed."""
    pattern = r"Running stage '(\w+)'.*? done seconds=([\d.]+)"
    return {word: float(seconds) + START_S for word, seconds in re.findall(pattern, log, re.DOTALL)}


def running(log: Path) -> str | None:
    """The stage that DVC has started last."""
    started = re.findall(r"Running stage '(\w+)'", log.read_text(errors="replace"))
    return started[-1] if started else None


def kill(process: "psutil.Popen", victim: str) -> None:
    """SIGKILL to DVC, to what it started, or to all of them in one go."""
    dvc = psutil.Process(process.pid)
    if victim == "both":
        os.killpg(process.pid, signal.SIGKILL)
    for target in {"both": [], "dvc": [dvc], "stage": dvc.children(recursive=True)}[victim]:
        target.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(ROUNDS))
def test_after_a_kill_in_every_stage_a_plain_repro_ends_as_if_nothing_had_been(
    number: int,
    undisturbed: Checkout,
    tmp_path: Path,
    same: Callable[[Checkout], None],
    champion_is_whole: Callable[[Checkout], bool],
) -> None:
    chance = random.Random(number)
    seconds = stage_seconds((undisturbed.root / "repro.log").read_text())
    checkout = Checkout.clone(tmp_path / "ctinterp")
    hits = []
    for position, word in enumerate(STAGES):
        log, victim = tmp_path / f"{word}.log", VICTIMS[(position + number) % len(VICTIMS)]
        delay_s = chance.uniform(0, seconds[word])
        process = checkout.start("dvc", "repro", log=log)
        while process.poll() is None and running(log) != word:
            time.sleep(0.02)
        deadline = time.monotonic() + delay_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            kill(process, victim)
            hits.append(f"{running(log)}+{delay_s:.1f}s:{victim}")
        process.wait()
        champion_is_whole(checkout)
    print(f"\nround {number}: {len(hits)} kills: {' '.join(hits)}")
    assert len(hits) >= len(STAGES) - 2
    checkout.run("dvc", "repro")
    same(checkout)
    assert champion_is_whole(checkout)
