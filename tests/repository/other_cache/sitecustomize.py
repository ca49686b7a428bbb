"""Python imports this first where its folder is in PYTHONPATH: a stage then finds another first-level data cache.

oneDNN plans its sums by the sizes of the caches, which it asks the processor for, so that no variable changes them: in
a stage's process its function for them is overwritten.
"""

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

FUNCTION = "_ZN4dnnl4impl3cpu8platform23get_per_core_cache_sizeEi"


def main() -> None:
    """Overwrite it in the code of an x86-64: 48 KiB of the first level, 32 where it has 48; what it said of others."""
    import torch  # noqa: PLC0415 (in a stage alone)

    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout.splitlines()
    (offset,) = (int(line.split()[0], 16) for line in symbols if line.endswith(f" {FUNCTION}"))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(f"/{library.name}")]
    address = min(int(line.partition("-")[0], 16) for line in mapped) + offset
    size_of_level = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int)(address)
    other = (32 if size_of_level(1) == 48 * 1024 else 48) * 1024
    sizes = [other, size_of_level(2), size_of_level(3)]
    answers = [b"\xb8" + size.to_bytes(4, "little") + b"\xc3" for size in sizes]  # mov eax, size; ret
    code = b"\x83\xff\x02\x74\x08\x77\x0c" + b"".join(answers)  # cmp edi, 2; je second; ja third
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    read_write_execute = 7
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), 2 * mmap.PAGESIZE, read_write_execute) == 0
    ctypes.memmove(address, code, len(code))
    assert [size_of_level(level) for level in (1, 2, 3)] == sizes


if any(word.startswith("stages.") for word in sys.orig_argv):
    main()
