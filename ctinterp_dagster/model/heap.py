"""The heap of the C library, which keeps what torch has freed."""

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back to the system: glibc keeps it, in pieces of the last pass that fit nothing of the next."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
