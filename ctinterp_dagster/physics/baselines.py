"""The classical methods that a model is compared with."""

from collections.abc import Mapping
from types import MappingProxyType

from ctinterp_dagster.physics.interpolators import cubic, cubic_projected, linear, nearest
from ctinterp_dagster.physics.measurement import Estimate, Measurement, Method
from ctinterp_dagster.physics.variational import tv_projected


def _registration_projected(it: Measurement) -> Estimate:
    # Imported when it is used: nothing else here needs SimpleITK, which GPU machines may lack.
    from ctinterp_dagster.physics.registration import registration_projected  # noqa: PLC0415

    return it.estimate(registration_projected(it.thick_hu, it.operator))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "nearest": lambda it: it.estimate(nearest(it.thick_hu, it.operator.thin_positions)),
        "linear": lambda it: it.estimate(linear(it.thick_hu, it.operator.thin_positions)),
        "cubic": lambda it: it.estimate(cubic(it.thick_hu, it.operator.thin_positions)),
        "cubic_projected": lambda it: it.estimate(cubic_projected(it.thick_hu, it.operator)),
        "tv_projected": lambda it: it.estimate(tv_projected(it.thick_hu, it.operator, it.aspect)),
        "registration_projected": _registration_projected,
    }
)
