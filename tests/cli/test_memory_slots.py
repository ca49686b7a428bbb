import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctinterp_dagster.cli.memory_slots import needed_gib, slots_gib, turn
from ctinterp_dagster.scan.io import read_scan, write_volume
from tests.phantoms import phantom

HOLDER = """
import sys
from pathlib import Path
from ctinterp_dagster.cli.memory_slots import turn
with turn(float(sys.argv[2]), 4, lambda: print("waits", flush=True), Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, needed: float) -> "subprocess.Popen[str]":
    """A process that holds slots until its standard input is closed."""
    command = [sys.executable, "-c", HOLDER, str(folder), str(needed)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def says(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_run_waits_until_there_is_room_and_is_told_once(tmp_path: Path) -> None:
    with holder(tmp_path, 2.5) as other:  # 3 of 4
        assert says(other) == "holds"
        with turn(1, 4, pytest.fail, tmp_path):
            pass
        told: list[float] = []

        def waiting() -> None:
            assert other.stdin
            told.append(time.monotonic())
            other.stdin.close()

        with turn(2, 4, waiting, tmp_path):
            assert len(told) == 1


def test_the_slots_of_a_killed_run_are_free(tmp_path: Path) -> None:
    with holder(tmp_path, 4) as other:
        assert says(other) == "holds"
        other.kill()
        other.wait()
        with turn(4, 4, pytest.fail, tmp_path):
            pass


def test_a_run_that_needs_more_than_there_is_takes_all(tmp_path: Path) -> None:
    with turn(100, 4, pytest.fail, tmp_path):
        other = holder(tmp_path, 1)
        assert says(other) == "waits"
    with other:
        assert says(other) == "holds"


def test_a_run_is_counted_by_its_volume_and_its_working_memory() -> None:
    assert needed_gib(3.0, 250 * 512 * 512) == pytest.approx(0.5 + 3 + 8 * 0.244140625)
    assert slots_gib() >= 1


WITHOUT_UNIX = """
import errno, os, signal, sys
from fcntl import F_GETFL, fcntl
import psutil  # its part for Linux needs what Windows has not
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("getuid", "geteuid", "killpg", "setsid", "sched_getaffinity"):
    delattr(os, name)
del signal.SIGHUP
os.environ["USERNAME"] = "anna"
fsync, replace = os.fsync, os.replace

def fsync_of_windows(handle):
    if fcntl(handle, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    fsync(handle)

def replace_of_windows(source, target):
    if os.path.isdir(target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    replace(source, target)

os.fsync, os.replace = fsync_of_windows, replace_of_windows
from ctinterp_dagster.cli import main
for output in ("thin.nii", "series"):
    sys.argv = ["ctinterp", "interpolate", "thick.nii", "-o", output, "--method", "cubic_projected"]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def test_interpolate_needs_nothing_that_only_unix_has(tmp_path: Path) -> None:
    """A stand-in for Windows, which nobody ran this on."""
    thick = phantom("turns", (12, 24, 24), (5.0, 10.0, 10.0), 10.0)
    write_volume(thick, tmp_path / "thick.nii")
    (tmp_path / "series").mkdir()
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", WITHOUT_UNIX]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for output in ("thin.nii", "series"):
        assert read_scan(tmp_path / output).volume.depth == 60
