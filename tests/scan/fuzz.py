"""Damaged scans by the thousand: each is refused in our own words or read, within 5 s and 1 GiB.

    python -m tests.scan.fuzz --inputs 10000

Input k is the same for the same seed and versions of the libraries. Prints what became of the inputs; exits 1 if one
crashed its process, hung, ran out of memory, or raised what is no error of ctinterp. `--only K` repeats one, with its
traceback.
"""

import argparse
import gzip
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from ctinterp_dagster.errors import CtinterpError, ScanError
from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.io import find_scans, read_scan

from .seeds import SEEDS, TARGET, Files, zipped
from .seeds import seed as intact

LIMIT_S = 5.0
LIMIT_BYTES = 2**30
# What a header says at the edges of its fields: as integers, and as text.
EDGES = (0, 1, -1, 2, 127, 128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
WORDS = (
    b"0", b"-1", b"1", b"3", b"1e308", b"-1e-308", b"nan", b"inf", b"65535", b"99999", b"4294967295",
    b"9223372036854775807", b"", b"\\", b"x", b"/etc/hostname", b"..",
)  # fmt: skip
# Bytes of a file that count as its header, which takes most of the damage.
HEADER = 700

Random = np.random.Generator


def _place(rng: Random, content: bytes) -> int:
    """Where to do damage: mostly in the header."""
    size = min(len(content), HEADER) if rng.random() < 0.7 else len(content)
    return int(rng.integers(max(size, 1)))


def _flip(rng: Random, content: bytes) -> bytes:
    out = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        out[_place(rng, content)] = rng.integers(256)
    return bytes(out)


def _edge(rng: Random, content: bytes) -> bytes:
    at, size = _place(rng, content), int(rng.choice([1, 2, 4, 8]))
    value = EDGES[rng.integers(len(EDGES))] % 2 ** (8 * size)
    return content[:at] + value.to_bytes(size, "little") + content[at + size :]


def _float(rng: Random, content: bytes) -> bytes:
    at, kind = _place(rng, content), rng.choice(["<f4", "<f8"])
    value = np.array(rng.choice([0, -1, 1e30, 1e-30, np.nan, np.inf])).astype(kind).tobytes()
    return content[:at] + value + content[at + len(value) :]


def _number(rng: Random, content: bytes) -> bytes:
    """Another word in the place of a number in text."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:HEADER]))
    if not found:
        return _flip(rng, content)
    hit = found[rng.integers(len(found))]
    word = WORDS[rng.integers(len(WORDS))]
    if rng.random() < 0.5:  # of the same length, so that lengths that precede it stay right
        word = word[: len(hit[0])].ljust(len(hit[0]))
    return content[: hit.start()] + word + content[hit.end() :]


def _cut(rng: Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _remove(rng: Random, content: bytes) -> bytes:
    at = _place(rng, content)
    return content[:at] + content[at + int(rng.integers(1, 64)) :]


def _repeat(rng: Random, content: bytes) -> bytes:
    at, size = _place(rng, content), int(rng.integers(1, 256))
    return content[:at] + content[at : at + size] * int(rng.integers(2, 200)) + content[at:]


def _splice(rng: Random, content: bytes) -> bytes:
    """The begin of one format, the end of another."""
    names = list(SEEDS)
    other = next(iter(intact(names[rng.integers(len(names))]).values()))
    return content[: _place(rng, content)] + other[_place(rng, other) :]


DAMAGE: Sequence[Callable[[Random, bytes], bytes]] = (
    _flip, _edge, _edge, _float, _number, _number, _cut, _remove, _repeat, _splice,
)  # fmt: skip


def _damaged(rng: Random, content: bytes) -> bytes:
    for _ in range(rng.integers(1, 4)):
        content = DAMAGE[rng.integers(len(DAMAGE))](rng, content) or b"\0"
    return content


def make_input(seed: int, index: int, formats: Sequence[str] = tuple(SEEDS)) -> tuple[str, Files]:
    """Input number `index`: the format's name, and its files with damage in one of them."""
    rng = np.random.default_rng([seed, index])
    name = formats[index % len(formats)]
    files = dict(intact(name))
    target = TARGET if TARGET in files else next(iter(files))
    if name == "zip" and rng.random() < 0.5:
        inner = dict(intact("DICOM"))
        inner[TARGET] = _damaged(rng, inner[TARGET])
        files[target] = zipped(inner)
    elif name == "NIfTI, gzip" and rng.random() < 0.5:
        files[target] = gzip.compress(_damaged(rng, gzip.decompress(files[target])), mtime=0)
    else:
        files[target] = _damaged(rng, files[target])
    return name, files


def examine(folder: Path) -> str:
    """Read and judge every scan of a folder, as ingest does; "read", or the reason of the last refusal.

    Raises:
        MemoryError: an allocation was refused.
    """
    outcome = "read"
    for found in find_scans(folder):
        try:
            check_volume(read_scan(found).volume, min_slices=3)
        except CtinterpError as error:
            if isinstance(error, ScanError):
                found.without_names(error)
            if re.search("alloc|out of memory", str(error), re.IGNORECASE):
                raise MemoryError(str(error)) from error
            outcome = getattr(error, "reason", type(error).__name__)
    return outcome


def _put(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _work(pipe: Connection, folder: Path) -> None:
    """A process that reads one folder after the other until it is told to end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for format_ in SEEDS:  # the libraries' own plug-ins are loaded before the memory is bounded
        _put(folder, intact(format_))
        examine(folder)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    pipe.send("ready")
    while pipe.recv():
        try:
            outcome = examine(folder)
        except BaseException as error:  # noqa: BLE001 - what is raised is the finding
            outcome = f"! {type(error).__name__}: {error}"
        pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


@dataclass
class Worker(AbstractContextManager["Worker"]):
    """A process that may die or hang; then there is a new one."""

    folder: Path
    pipe: Connection | None = None
    process: multiprocessing.process.BaseProcess | None = None

    def examine(self) -> tuple[str, int]:
        """What became of the folder, and the process' peak of resident memory in bytes."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=_work, args=(theirs, self.folder / "input"), daemon=True)
            files = {p.name: p.read_bytes() for p in (self.folder / "input").iterdir()}
            self.process.start()
            theirs.close()
            self.pipe.recv()
            _put(self.folder / "input", files)
        assert self.pipe is not None
        self.pipe.send("go")
        try:
            if self._answers():
                return self.pipe.recv()
            outcome = f"! more than {LIMIT_S:g} s"
        except EOFError:
            self.process.join()
            outcome = f"! the process ended with {self.process.exitcode}"
        self.end()
        return outcome, 0

    def _answers(self) -> bool:
        """Whether an answer comes within the limit of processor time, or twelve times that by the clock."""
        assert self.process is not None
        assert self.pipe is not None
        process, start = psutil.Process(self.process.pid), time.monotonic()
        spent = sum(process.cpu_times()[:2])
        while not self.pipe.poll(LIMIT_S / 10):
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True  # its pipe ends: receiving says so
            if sum(process.cpu_times()[:2]) - spent > LIMIT_S or time.monotonic() - start > 12 * LIMIT_S:
                return False
        return True

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.end()

    def __enter__(self) -> Self:
        return self


@dataclass
class Report:
    """What became of the inputs.

    Attributes:
        outcomes: how many of each format ended how.
        findings: index, format and what happened, of inputs that did not end as they must.
        slowest_s: the longest time for one input.
        peak_bytes: the largest resident memory of a process.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_bytes: int = 0

    def lines(self) -> list[str]:
        """The counts as text: a row a format, then the findings."""
        kinds = sorted({kind for _, kind in self.outcomes})
        counts = [f"{name:20s}" + "".join(f"{self.outcomes[name, kind]:15d}" for kind in kinds) for name in SEEDS]
        return [
            f"{self.outcomes.total()} inputs, {len(self.findings)} found",
            f"slowest {self.slowest_s:.2f} s, peak {self.peak_bytes / 2**20:.0f} MiB",
            f"{'':20s}" + "".join(f"{kind:>15s}" for kind in kinds),
            *counts,
            *(f"input {index} ({name}): {what}" for index, name, what in self.findings),
        ]


def run(inputs: range, seed: int, formats: Sequence[str]) -> Report:
    """Damage and read the inputs of these numbers."""
    report = Report()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, Worker(Path(scratch)) as worker:
        for index in inputs:
            name, files = make_input(seed, index, formats)
            _put(Path(scratch) / "input", files)
            start = time.monotonic()
            had_process = worker.process is not None
            outcome, peak = worker.examine()
            if had_process:
                report.slowest_s = max(report.slowest_s, time.monotonic() - start)
            report.peak_bytes = max(report.peak_bytes, peak)
            if outcome.startswith("!"):
                report.findings.append((index, name, outcome[2:]))
            report.outcomes[name, "FOUND" if outcome.startswith("!") else outcome] += 1
    return report


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=list(SEEDS), action="append", help="all by default; may be repeated")
    parser.add_argument("--only", type=int, help="read one input in this process")
    given = parser.parse_args()
    formats = given.format or tuple(SEEDS)
    if given.only is not None:
        with tempfile.TemporaryDirectory() as scratch:
            name, files = make_input(given.seed, given.only, formats)
            _put(Path(scratch) / "input", files)
            print(name, examine(Path(scratch) / "input"))
        return 0
    report = run(range(given.first, given.first + given.inputs), given.seed, formats)
    print("\n".join(report.lines()))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
