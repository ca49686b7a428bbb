"""Slabs that vary, and slabs that do not."""

from dataclasses import replace

from ctinterp_dagster.nullspace.slabs import Augmentation, SlabSettings
from ctinterp_dagster.physics.profile import Trapezoid

VARIED = Augmentation(
    factors=(*7 * (5,), 2, 3, 3, 4, 4, 6, 7, 8, 9, 10),
    profiles=(*4 * ("box",), *2 * ("gaussian",), *2 * ("triangle",), Trapezoid(0.2), Trapezoid(0.5)),
    widths=(*6 * (1.0,), 0.65, 0.8, 0.9, 0.9, 1.1, 1.2, 1.5, 2.0),
    anisotropy=1.5,
    one_in=3,
    sharpness=(-0.7, 1.5),
    magnification=1.5,
    zoom=2.36,
    noise_hu=10.0,
)
PLAIN = replace(VARIED, factors=(5,), profiles=("box",), widths=(1.0,), anisotropy=0.0, one_in=0, noise_hu=0.0)


def varied(zyx: tuple[int, int, int], noise_hu: float) -> SlabSettings:
    """All that can vary does."""
    return SlabSettings(zyx, replace(VARIED, noise_hu=noise_hu))


def plain(zyx: tuple[int, int, int]) -> SlabSettings:
    """Factor 5 with the box profile, and nothing else."""
    return SlabSettings(zyx, PLAIN)
