"""What the project does on a GPU, in one command that needs nothing but torch, numpy, scipy, safetensors, accelerate.

    python -m benchmarks.gpu --out results [--only parity,inference] [--seconds 60] [--kit KIT] [--small]

Sections: `training` takes the pace and the memory of every training, and saves the weights of a short one; `parity`
compares the device with the CPU; `inference` takes seconds and memory of restoring and of MAISI's autoencoder;
`torchrun` trains under a launcher, kills it and resumes; `ceilings` says what the card reaches at best.
Every number is printed as it comes and kept in results.json. What fails is printed and counted, and stops nothing else;
the exit code is then 1. `--small` runs all of it on a CPU with tiny sizes.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

from benchmarks.gpu.ceilings import ceilings
from benchmarks.gpu.context import Context, machine
from benchmarks.gpu.inference import inference
from benchmarks.gpu.parity import parity
from benchmarks.gpu.torchrun import torchrun
from benchmarks.gpu.training import training

SECTIONS: dict[str, Callable[[Context], None]] = {
    "training": training,
    "parity": parity,
    "inference": inference,
    "torchrun": torchrun,
    "ceilings": ceilings,
}


def parse_sections(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    """Split a,b,c and refuse unknown names.

    Args:
        value: names of `SECTIONS`, with commas between.

    Returns:
        Names in the order that was given.

    Raises:
        BadParameter: a name is unknown.
    """
    names = value.split(",")
    if unknown := set(names) - SECTIONS.keys():
        raise click.BadParameter(f"unknown {', '.join(sorted(unknown))}: expected {', '.join(SECTIONS)}")
    return names


@click.command
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder of results")
@click.option("--small", is_flag=True, help="tiny sizes on the CPU")
@click.option("--kit", type=click.Path(path_type=Path), help="training volumes; phantoms without it")
@click.option("--only", "names", default=",".join(SECTIONS), show_default=True, callback=parse_sections,
              help="sections, in this order")  # fmt: skip
@click.option("--seconds", default=60.0, show_default=True, help="budget of a section")
def main(out: Path, kit: Path | None, names: list[str], seconds: float, *, small: bool) -> None:
    """Run the sections."""
    start = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() and not small else "cpu")
    context = Context(device, small, out, seconds, kit)
    print(" ".join(f"{key}={value}" for key, value in machine(device).items()), flush=True)
    for name in names:
        context.run_section(name, SECTIONS[name])
    failed = [f"{row['section']}/{row['part']}" for row in context.rows if "failed" in row]
    skipped = sum("skipped" in row for row in context.rows)
    done = len(context.rows) - len(failed) - skipped
    print(
        f"\n{done} parts done, {skipped} left out, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}; "
        f"{time.perf_counter() - start:.0f} s; {out / 'results.json'}",
        flush=True,
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
