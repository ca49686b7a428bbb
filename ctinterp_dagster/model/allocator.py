"""The heap of the C library, which keeps what torch has freed, or does not."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of mallopt, see malloc.h
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}  # where glibc's own thresholds end up


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps it, in pieces of the last pass that fit nothing of the next."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@contextmanager
def kept() -> Iterator[None]:
    """Within it glibc keeps what is freed, however large, and gives it back at the end.

    A tensor of more than 32 MiB is otherwise mapped afresh each time, and the pages that the system has to clear cost
    as much as the layers that fill them.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, KEEPING)
    try:
        yield
    finally:
        _set(libc, USUAL)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    return libc if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim") else None
