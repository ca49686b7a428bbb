"""The classical methods that a model is compared with."""

from collections.abc import Mapping
from types import MappingProxyType

from ctinterp_dagster.physics.interpolators import cubic, cubic_projected, linear, nearest
from ctinterp_dagster.physics.measurement import Estimate, Measurement, Method
from ctinterp_dagster.physics.variational import tv_projected


def _registration_projected(m: Measurement) -> Estimate:
    # Imported when it is used: nothing else here needs SimpleITK, which GPU machines may lack.
    from ctinterp_dagster.physics.registration import registration_projected  # noqa: PLC0415

    return m.estimate(registration_projected(m.thick_hu, m.operator))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "nearest": lambda m: m.estimate(nearest(m.thick_hu, m.operator.thin_positions)),
        "linear": lambda m: m.estimate(linear(m.thick_hu, m.operator.thin_positions)),
        "cubic": lambda m: m.estimate(cubic(m.thick_hu, m.operator.thin_positions)),
        "cubic_projected": lambda m: m.estimate(cubic_projected(m.thick_hu, m.operator)),
        "tv_projected": lambda m: m.estimate(tv_projected(m.thick_hu, m.operator, m.aspect)),
        "registration_projected": _registration_projected,
    }
)
