"""The phantom of the package, drawn once a process for the same arguments; what is given is a copy."""

from functools import cache

from ctinterp_dagster.scan import phantom as drawn
from ctinterp_dagster.scan.volume import Volume

_drawn = cache(drawn.phantom)


def phantom(
    patient: int | str, shape_zyx: tuple[int, int, int], spacing_mm: tuple[float, float, float], noise_hu: float
) -> Volume:
    made = _drawn(patient, shape_zyx=shape_zyx, spacing_mm=spacing_mm, noise_hu=noise_hu)
    return made.with_hu(made.hu.copy())
