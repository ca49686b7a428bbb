#!/usr/bin/env bash
# Bet: with two threads, deterministic algorithms and one instruction set, the weight gradient of a convolution in
# float32 has the same bits on two processors that differ in the size of a cache alone.
#
# Seen: torch 2.13.0 (oneDNN 3.12.0), x86-64 with AVX-512. Where oneDNN finds 48 KiB of first-level data cache in the
# place of 32, the weight gradient of a 1x1x1 convolution has other last bits; the result of the convolution
# and the gradient of a 3x3x3 one have not. Limited to AVX2 (ONEDNN_MAX_CPU_ISA=AVX2) all are the same.
# `torch.use_deterministic_algorithms` says nothing of it, and no variable sets the size: oneDNN asks the processor. Here
# its function for the sizes is overwritten in memory.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq torch==2.13.0 numpy==2.4.6
cat > gradient.py <<'PYTHON'
import ctypes
import hashlib
import mmap
import subprocess
import sys
from pathlib import Path

import torch


def pretend(level_1_bytes: int) -> None:
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    name = "_ZN4dnnl4impl3cpu8platform23get_per_core_cache_sizeEi"
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout.splitlines()
    (offset,) = (int(line.split()[0], 16) for line in symbols if line.endswith(f" {name}"))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(f"/{library.name}")]
    address = min(int(line.partition("-")[0], 16) for line in mapped) + offset
    size = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int)(address)
    sizes = [level_1_bytes, size(2), size(3)]
    answers = [b"\xb8" + value.to_bytes(4, "little") + b"\xc3" for value in sizes]  # mov eax, value; ret
    page = address // mmap.PAGESIZE * mmap.PAGESIZE
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), 2 * mmap.PAGESIZE, 7) == 0
    code = b"\x83\xff\x02\x74\x08\x77\x0c" + b"".join(answers)  # cmp edi, 2; je; ja
    ctypes.memmove(address, code, len(code))
    assert [size(level) for level in (1, 2, 3)] == sizes


def digests(kernel: int) -> tuple[str, str]:
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(32, 32, kernel, padding=kernel // 2)
    out = layer(torch.randn(2, 32, 12, 16, 16))
    out.square().sum().backward()
    return tuple(hashlib.sha256(t.detach().numpy().tobytes()).hexdigest()[:8] for t in (out, layer.weight.grad))


pretend(int(sys.argv[1]) * 1024)
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
print(*digests(1), *digests(3))
PYTHON
seen() { OMP_WAIT_POLICY=PASSIVE venv/bin/python gradient.py "$1"; }
small=$(seen 32) large=$(seen 48)
echo "1x1x1: result, gradient; 3x3x3: result, gradient"
echo "$small  with 32 KiB"
echo "$large  with 48 KiB"
[ "$(cut -d' ' -f1,3,4 <<<"$small")" = "$(cut -d' ' -f1,3,4 <<<"$large")" ]
[ "$(cut -d' ' -f2 <<<"$small")" != "$(cut -d' ' -f2 <<<"$large")" ]
export ONEDNN_MAX_CPU_ISA=AVX2
[ "$(seen 32)" = "$(seen 48)" ] && echo "the same with AVX2"
