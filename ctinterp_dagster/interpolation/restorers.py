"""What the interpolator asks of a learned method, and which there are."""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from torch import Tensor

from ctinterp_dagster.latent.restorer import LatentRestorer
from ctinterp_dagster.model.restore_settings import Prior, Settings
from ctinterp_dagster.model.sampler import Diffusion
from ctinterp_dagster.nullspace.restorer import NullSpaceRestorer
from ctinterp_dagster.physics.measurement import Measurement


class Restorer(Protocol):
    """A model that was shown what was measured, on the model's device.

    Attributes:
        restores: the class of its models.
        low_precision: whether the loss of its networks in bf16 and int8 was measured; else `auto` means float32, and
            int8 is refused.
        starts_from_regression: whether settings without `mirror` give a regression, the mean of one pass.
        missing_hu2: variance of the noise that the samples drawn so far were given in addition, HU squared.
    """

    restores: ClassVar[type[Diffusion]]
    low_precision: ClassVar[bool]
    starts_from_regression: ClassVar[bool]
    missing_hu2: float

    def __init__(self, model: Diffusion, measurement: Measurement, settings: Settings) -> None: ...

    @property
    def work(self) -> float:
        """What is to be done for all that the settings ask, in the units that `model.tiles.watched` is told."""

    def mean(self) -> Tensor:
        """The estimate of the thin volume, (z, y, x) HU."""

    def draws(self) -> Iterator[Tensor]:
        """Samples of the posterior, (z, y, x) HU, as many as the settings say."""

    def prior(self) -> Prior:
        """Variance to be expected of the samples drawn, (z, y, x) HU squared, and how many samples it is worth."""


RESTORERS: dict[str, type[Restorer]] = {own.restores.kind: own for own in (NullSpaceRestorer, LatentRestorer)}
"""By the kind of model that a file names."""
