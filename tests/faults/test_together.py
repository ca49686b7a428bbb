"""Several runs at once, and a clock that goes backwards."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkout import Checkout

pytestmark = pytest.mark.slow

Same = Callable[[Checkout], None]
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def test_two_repros_and_a_dagster_run_at_once_corrupt_nothing(
    tmp_path: Path, same: Same, one_line: Callable[[str], str], champion_is_whole: Callable[[Checkout], bool]
) -> None:
    (tmp_path / "home").mkdir()
    variables = {"DAGSTER_HOME": str(tmp_path / "home"), "DO_NOT_TRACK": "1"}
    checkout = Checkout.clone(tmp_path / "ctinterp", variables)
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    dagster = ("dagster", "asset", "materialize", "-m", "ctinterp_dagster.definitions", "--select", "+key:report")
    started = []
    for command, log in zip([("dvc", "repro"), dagster, ("dvc", "repro")], logs, strict=True):
        started.append(checkout.start(*command, log=log))
        time.sleep(5)
    codes = [process.wait() for process in started]
    print(f"\nexit codes of dvc, dagster, dvc: {codes}")
    assert 0 in codes
    for code, log in zip(codes, logs, strict=True):
        if code:
            print(one_line(log.read_text()))
    checkout.run("dvc", "repro")
    same(checkout)
    assert champion_is_whole(checkout)


@pytest.mark.skipif(not LIBRARIES, reason="needs Debian's faketime")
def test_a_clock_that_jumps_back_a_year_changes_nothing(tmp_path: Path, same: Same) -> None:
    checkout = Checkout.clone(tmp_path / "ctinterp")
    clock = tmp_path / "clock"
    clock.write_text("+0d")
    variables = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "NO_FAKE_STAT": "1",  # times of files do not jump with a clock
    }
    log = tmp_path / "repro.log"
    process = replace(checkout, variables=variables).start("dvc", "repro", log=log)
    while process.poll() is None and "Running stage 'autoencoder'" not in log.read_text():
        time.sleep(0.2)
    clock.write_text("-365d")
    assert process.wait() == 0, log.read_text()[-4000:]
    checkout.run("dvc", "repro")
    same(checkout)
