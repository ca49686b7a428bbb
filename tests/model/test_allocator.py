import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from ctinterp_dagster.model.allocator import kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill(times):
    before = faults()
    for _ in range(times):
        torch.ones(16 << 20)  # 64 MiB: glibc would map it afresh each time
    return faults() - before

torch.set_num_threads(1)
usual = fill(8)
with kept():
    fill(16)
    inside = fill(8)
print(usual, inside, fill(8), int(open("/proc/self/statm").read().split()[1]) >> 8)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_pages_are_kept_inside_and_given_back_at_the_end() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    usual, inside, after, resident_mib = map(int, result.stdout.split())
    pages = 8 * (64 << 20) // 4096
    assert inside < 0.3 * pages
    assert min(usual, after) > 0.2 * pages, "outside large tensors are mapped afresh"
    assert resident_mib < 450, "the bytes of sixteen tensors would be a GiB"
