#!/usr/bin/env bash
# Bet: to write 131,072 numbers of float32 as uint8 takes torch about as long as to write them as int8: as many bytes are
# read and written.
#
# Seen: torch 2.13.0 on x86-64, one thread: seven to ten times as long (75 and 10 microseconds with AVX-512 on the machine
# where this was written, 68 and 8 with AVX2), and the same bytes by way of int16 take a quarter of it: int16 from
# float32 and uint8 from int16 are both fast. From bfloat16 to uint8 it is as slow.
#
# A ratio is held, of the least of many times; other work on the machine may add to both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq torch==2.13.0 numpy==2.4.6
cat > copies.py <<'PYTHON'
import timeit

import torch

torch.set_num_threads(1)
print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
values = 255 * torch.rand(131_072)
middle = torch.empty(len(values), dtype=torch.int16)


def microseconds(dtype: torch.dtype, *, by_way_of: torch.Tensor | None = None) -> float:
    out = torch.empty(len(values), dtype=dtype)
    copy = (lambda: out.copy_(values)) if by_way_of is None else (lambda: out.copy_(by_way_of.copy_(values)))
    return 1e6 * min(timeit.repeat(copy, number=50, repeat=40)) / 50


signed, unsigned = microseconds(torch.int8), microseconds(torch.uint8)
around = microseconds(torch.uint8, by_way_of=middle)
print(f"float32 to int8 {signed:.0f}, to uint8 {unsigned:.0f}, to int16 and then uint8 {around:.0f} microseconds")
assert torch.equal(values.to(torch.uint8), values.to(torch.int16).to(torch.uint8))
assert unsigned > 3 * signed
assert unsigned > 2 * around
PYTHON
venv/bin/python copies.py
