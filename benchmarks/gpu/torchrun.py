"""Section `torchrun`: a training under a launcher (NCCL, on a CPU gloo), killed in the middle, resumed.

Each kind of training runs once undisturbed, and once with `kill -9` and a resume from the checkpoint; the numbers say
how far the weights are apart. `loose` takes the fastest algorithms, as trainings do; `strict` deterministic ones;
`fsdp` is strict, and sharded over one process by Accelerate's FSDP 2.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.gpu.context import LINES, Context, Numbers

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 180
REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "NO_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
KINDS: dict[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "strict": (("--strict",), REPEATABLE),
    "loose": ((), {}),
    "fsdp": (("--strict",), REPEATABLE | FSDP),
}


def torchrun(context: Context) -> None:
    """Train all kinds at once; compare. Accelerate shards nothing on a CPU, so that `--small` is strict alone."""
    kinds = ["strict"] if context.small else list(KINDS)
    with ThreadPoolExecutor() as pool:
        runs = {
            kind: [pool.submit(trained, context, kind, interrupted=interrupted) for interrupted in (False, True)]
            for kind in kinds
        }
        for kind, (whole, resumed) in runs.items():
            context.part(kind, lambda whole=whole, resumed=resumed: apart(whole.result(), resumed.result()))
    if "fsdp" in kinds:
        folders = (context.out / f"{kind}-whole" / "weights.pt" for kind in ("strict", "fsdp"))
        context.part("fsdp against strict", lambda: apart(*folders))


def trained(context: Context, kind: str, *, interrupted: bool) -> Path:
    """The weights of a training, which was killed after its last checkpoint but one where it is interrupted."""
    folder = context.out / f"{kind}-{'resumed' if interrupted else 'whole'}"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    if interrupted:
        launch(context, kind, folder, die_at=5 if context.small else 25)
    launch(context, kind, folder, die_at=0)
    return folder / "weights.pt"


def launch(context: Context, kind: str, folder: Path, *, die_at: int) -> None:
    """Start the worker under torchrun, and see it end as it should.

    Args:
        context: the device, and whether all is small.
        kind: of training, one of `KINDS`.
        folder: of its files and logs.
        die_at: the step at which it is to be killed; 0 for never.

    Raises:
        RuntimeError: it does not; with the last lines that it wrote.
    """
    options, environment = KINDS[kind]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "benchmarks.gpu.worker", "--folder", str(folder), "--device", context.device.type]
    command += [*options, "--die-at", str(die_at), *(["--small"] if context.small else [])]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | dict(environment) | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    (folder / f"log-{'killed' if die_at else 'ended'}.txt").write_text(run.stdout + run.stderr, encoding="utf-8")
    killed = "SIGKILL" in run.stderr and (folder / "resume.pt").exists()
    if (die_at and not killed) or (not die_at and run.returncode):
        own = [line for line in run.stderr.splitlines() if "Error" in line][:LINES]
        raise RuntimeError("\n".join([f"the training ended with {run.returncode}", *own]))


def apart(first: Path, second: Path) -> Numbers:
    """How far two trainings' weights are apart: the largest difference, and the norm of it over the norm."""
    a, b = (torch.load(path, map_location="cpu", weights_only=True) for path in (first, second))
    one, other = (torch.cat([tensor.flatten().double() for tensor in weights.values()]) for weights in (a, b))
    difference = one - other
    return {
        "how": (second.parent / "how.txt").read_text(encoding="utf-8"),
        "bit_equal": bool((one == other).all()),
        "max_abs": float(difference.abs().max()),
        "relative": float(difference.norm() / one.norm()),
    }
