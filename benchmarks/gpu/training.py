"""Section `training`: the pace of every training, its memory, and how much of the card it uses; and a short training.

Without a kit the volumes are phantoms, which cost as much.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.context import Context, Numbers
from benchmarks.gpu.recipes import PILOT, SETTINGS, TRAININGS, Given, Training, Weights
from benchmarks.gpu.subjects import volumes
from benchmarks.gpu.train import paced, step_tflop, timed
from benchmarks.packed_volumes import read_kit
from ctinterp_dagster.training.device_volumes import ThinVolume

SMALL = {"expectation": (8, 8), "denoiser": (8, 8), "autoencoder": (16, 16, 16, 4), "latent": (8, 8)}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    " batch 16": {"batch_size": 16},
    " compiled": {"compile": True},
    " checkpointed": {"gradient_checkpointing": True},
}
Split = tuple[Sequence[ThinVolume], Sequence[ThinVolume]]


def training(context: Context) -> None:
    """Measure: the expectation first, since the denoiser is trained around it."""
    size, steps, seconds = ((85, 96, 96), 3, 0.5) if context.small else ((110, 160, 160), PILOT, 15.0)
    data = read_kit(context.kit) if context.kit else (volumes(size, 3), volumes(size, 1))
    if context.small:
        torch.set_num_threads(1)
    context.part("expectation, and its weights", lambda: saved(context, data, seconds, steps))
    for name in TRAININGS:
        for variant, changes in VARIANTS.items() if name == "expectation" and not context.small else [("", {})]:
            context.part(
                f"{name}{variant}", lambda name=name, changes=changes: pace(context, name, data, steps, changes)
            )


def made(context: Context, name: str, data: Split, **changes: Any) -> Training:
    """A training, narrow where all is small."""
    settings = replace(SETTINGS, **({"batch_size": 1} if context.small else {}) | changes)
    return TRAININGS[name](Given(*data, Weights(context.out), settings, SMALL[name] if context.small else ()))


def pace(context: Context, name: str, data: Split, steps: int, changes: dict[str, Any]) -> Numbers:
    """Steps, samples and operations a second, and memory on the device."""
    one = made(context, name, data, **changes)
    steps_s, peak_gib = paced(one, steps)
    return {
        "steps_per_s": steps_s,
        "samples_per_s": steps_s * one.settings.batch_size,
        "tflops": steps_s * step_tflop(one),
        "peak_gib": peak_gib,
    }


def saved(context: Context, data: Split, seconds: float, pilot: int) -> Numbers:
    """Train the expectation for so long; its weights and its curve lie in the folder of results."""
    history = timed(made(context, "expectation", data), "expectation", context.out, seconds, pilot)
    mib = (context.out / "expectation.safetensors").stat().st_size / 2**20
    return {"steps": float(len(history)), "loss": history[-1].loss, "weights_mib": mib}
