"""Slabs that vary, and slabs that do not."""

from dataclasses import replace

from benchmarks.gpu.subjects import AUGMENTATION
from ctinterp_dagster.nullspace.slab_settings import SlabSettings

PLAIN = replace(AUGMENTATION, factors=(5,), profiles=("box",), widths=(1.0,), anisotropy=0.0, one_in=0, noise_hu=0.0)


def varied(zyx: tuple[int, int, int], noise_hu: float) -> SlabSettings:
    """All that can vary does."""
    return SlabSettings(zyx, replace(AUGMENTATION, noise_hu=noise_hu))


def plain(zyx: tuple[int, int, int]) -> SlabSettings:
    """Factor 5 with the box profile, and nothing else."""
    return SlabSettings(zyx, PLAIN)
