"""The classical methods that a model is compared with, in one table."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from ctinterp_dagster.physics.interpolators import cubic, cubic_projected, linear, nearest
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.variational import tv_projected

Method = Callable[[Tensor, ThickeningOperator, float], Tensor]
"""Thick slices (n_thick, y, x) HU, the operator that made them, and the aspect (thin spacing over in-plane spacing)
give thin slices (n_thin, y, x) HU. Only total variation uses the aspect."""


def _registration_projected(thick: Tensor, operator: ThickeningOperator, _aspect: float) -> Tensor:
    # Imported when it is used: nothing else here needs SimpleITK, which GPU machines may lack.
    from ctinterp_dagster.physics.registration import registration_projected  # noqa: PLC0415

    return registration_projected(thick, operator)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "nearest": lambda thick, operator, _: nearest(thick, operator.thin_positions),
        "linear": lambda thick, operator, _: linear(thick, operator.thin_positions),
        "cubic": lambda thick, operator, _: cubic(thick, operator.thin_positions),
        "cubic_projected": lambda thick, operator, _: cubic_projected(thick, operator),
        "tv_projected": tv_projected,
        "registration_projected": _registration_projected,
    }
)
