"""Runs on one machine that take turns: twenty at once queue for the memory, and no two write to one place."""

import getpass
import hashlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

SHARE = 0.8  # of the machine's memory that all runs together may use
OVERHEAD_GIB = 0.5  # interpreter and libraries
COPIES = 8  # float32 volumes of the thin size alive at the peak: estimate, base, mean, squares, their differences
POLL_S = 0.2


def needed_gib(working_gib: float, voxels: int) -> float:
    """Memory of one interpolation in GiB.

    Args:
        working_gib: bound of the networks' working memory.
        voxels: of the thin volume.

    Returns:
        GiB, with what the runtime takes by itself.
    """
    return OVERHEAD_GIB + working_gib + COPIES * 4 * voxels / 2**30


def slots_gib() -> int:
    """The memory that all runs of this machine share, in slots of 1 GiB."""
    return max(1, int(SHARE * psutil.virtual_memory().total / 2**30))


@contextmanager
def turn(needed: float, slots: int, on_wait: Callable[[], None], folder: Path | None = None) -> Iterator[None]:
    """Hold `needed` GiB of this user's slots on this machine; wait until they are free.

    A slot is a locked file; the system unlocks it however its holder ends. A run that needs more than all slots takes
    all of them, and is alone.

    Args:
        needed: GiB, rounded up.
        slots: how many there are.
        on_wait: called once if the run has to wait.
        folder: where the files are; the system's temporary folder by default.
    """
    folder = folder or _folder()
    wanted = min(math.ceil(needed), slots)
    announced = False
    with ExitStack() as held:
        while not _take(folder, wanted, slots, held):
            if not announced:
                on_wait()
                announced = True
            time.sleep(POLL_S)
        yield


@contextmanager
def claim(place: Path) -> Iterator[bool]:
    """Yield whether a place is this run's alone; if so, no other of this user on this machine gets it until the end.

    The claim is a locked file; the system unlocks it however its holder ends.

    Args:
        place: what the run is to write.
    """
    lock = FileLock(_folder() / f"place-{hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:32]}")
    ours = _lock(lock)
    try:
        yield ours
    finally:
        if ours:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def _take(folder: Path, wanted: int, slots: int, held: ExitStack) -> bool:
    """Lock `wanted` slots or none; one process tries at a time, so that two never hold half of what they need."""
    with ExitStack() as mine, FileLock(folder / "door"):
        locked = 0
        for number in range(slots):
            if locked < wanted and _lock(slot := FileLock(folder / f"slot-{number}")):
                mine.callback(slot.release)
                locked += 1
        if locked < wanted:
            return False
        held.enter_context(mine.pop_all())
        return True


def _lock(slot: FileLock) -> bool:
    try:
        slot.acquire(blocking=False)
    except Timeout:
        return False
    return True


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"ctinterp-{_user()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _user() -> str | int:
    """Who runs this: a number where the system has one, which a container may know by no name."""
    return os.getuid() if hasattr(os, "getuid") else getpass.getuser()
