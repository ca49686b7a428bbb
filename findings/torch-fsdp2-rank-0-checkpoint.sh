#!/usr/bin/env bash
# Bet: a state_dict of a module that FSDP 2 shares between two processes, saved by the first of them as the tutorials
# save an unsharded one, has all of the weights; or loading it back is an error.
#
# Seen: torch 2.13.0 saves the first process's part. Both processes load the file back without an error or a warning,
# with weights_only as without, and the second then holds a copy of the first one's rows in the place of its own:
# 0 1 2 3 4 5 6 7 comes back as 0 1 2 3 0 1 2 3. A training that resumes so goes on with other weights than it had.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq torch==2.13.0 numpy==2.4.6
cat > shared.py <<'PYTHON'
import os
import warnings

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

ROWS = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def work(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layer = nn.Linear(1, len(ROWS), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(ROWS)[:, None])
    fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    assert layer.weight.full_tensor()[:, 0].tolist() == ROWS
    if rank == 0:
        torch.save(layer.state_dict(), "checkpoint.pt")
    distributed.barrier()
    for weights_only in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer.load_state_dict(torch.load("checkpoint.pt", weights_only=weights_only))
        rows = layer.weight.full_tensor()[:, 0].tolist()
        if rank == 0:
            print(f"torch {torch.__version__}, weights_only={weights_only}: {ROWS} came back as {rows}", flush=True)
        assert rows == ROWS[:4] * 2, rows
    distributed.destroy_process_group()


if __name__ == "__main__":
    multiprocessing.spawn(work, (os.getcwd(),), nprocs=2)
PYTHON
OMP_NUM_THREADS=1 venv/bin/python shared.py
