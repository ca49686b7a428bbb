#!/usr/bin/env bash
# Bet: a map of a closed file costs no descriptor. mmap(2): "After the mmap() call has returned, the file descriptor,
# fd, can be closed immediately without invalidating the mapping." So `ulimit -n` does not limit the number of maps.
#
# Seen: CPython 3.11.7 on Linux with numpy 2.4.6 and nibabel 5.4.2. At a limit of 256 the 251st map ends with "[Errno
# 24] Too many open files", although the file is closed after each. So it is with Python's mmap, with numpy.memmap and
# with the arrays that nibabel maps. C's mmap, called by ctypes, makes all 1000. The usual limit is 1024; a
# training that maps as many thin volumes reaches it.
#
# Why: Python's mmap keeps a duplicate of the descriptor for its size() and resize(). Python 3.13 leaves it out with
# `trackfd=False`, and its documentation says so; numpy does not ask for it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq numpy==2.4.6 nibabel==5.4.2
cat >maps.py <<'PYTHON'
import ctypes
import mmap
import platform
import sys

import nibabel
import numpy as np

MAPS = 1000
nibabel.save(nibabel.Nifti1Image(np.full((16, 16, 16), -924, np.int16), np.eye(4)), "volume.nii")
START = int(nibabel.load("volume.nii").dataobj.offset)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def by_c():
    with open("volume.nii", "rb") as file:
        address = libc.mmap(None, START + 2, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0)
    assert address != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return address


def by_python():
    with open("volume.nii", "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def by_python_untracked():
    with open("volume.nii", "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, trackfd=False)


def by_numpy():
    return np.memmap("volume.nii", np.int16, "r", offset=START)


def by_nibabel():
    array = np.asanyarray(nibabel.load("volume.nii").dataobj)
    assert isinstance(array, np.memmap)
    return array


def mapped(make):
    maps = []
    try:
        while len(maps) < MAPS:
            maps.append(make())
    except OSError as error:
        return maps, str(error)
    return maps, "no error"


freed = [by_python_untracked] if sys.version_info >= (3, 13) else []
print(f"Python {platform.python_version()}, numpy {np.__version__}, nibabel {nibabel.__version__}")
for make in (by_python, by_numpy, by_nibabel, by_c, *freed):
    maps, error = mapped(make)
    print(f"{make.__name__:19} {len(maps):4} of {MAPS} maps: {error}")
    if make in (by_c, *freed):
        assert len(maps) == MAPS
    else:
        assert 230 < len(maps) < 256
        assert "Errno 24" in error
    if make is by_c:
        assert all(ctypes.c_int16.from_address(address + START).value == -924 for address in maps)
    del maps
PYTHON
ulimit -n 256
venv/bin/python maps.py
