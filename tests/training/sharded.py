"""A tiny run whose weights are shared by processes of a CPU (FSDP 2), which torchrun starts; it may kill itself.

    torchrun --nproc_per_node=2 sharded.py FOLDER STEP

Accelerate shards on GPUs only: it is told here that this is one of its sharded runs.
"""

import os
import signal
import sys
from pathlib import Path

import tiny
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from ctinterp_dagster.training import loop
from ctinterp_dagster.training.loop import StepRecord


class Sharding(loop.Accelerator):
    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="NO_WRAP")
        plugin.set_mixed_precision(options["mixed_precision"])
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.state._shared_state["distributed_type"] = DistributedType.FSDP
        self.state.fsdp_plugin = plugin


def on_step(record: StepRecord) -> None:
    if record.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    loop.Accelerator = Sharding
    folder = Path(sys.argv[1])
    trained, _ = tiny.train(folder / "resume.pt", on_step, mixed_precision="bf16")
    if PartialState().is_main_process:
        torch.save(trained.state_dict(), folder / "weights.pt")
    PartialState().destroy_process_group()
