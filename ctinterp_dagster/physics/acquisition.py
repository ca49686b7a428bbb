"""How thick slices were acquired, as far as a user and the tags say."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.profile import Profile, SampledProfile
from ctinterp_dagster.scan.checks import SLICE_THICKNESS_MM
from ctinterp_dagster.scan.io import Scan

Auto = Literal["auto"]


@dataclass(frozen=True)
class Tags:
    """What the tags of a scan say of its slices.

    Attributes:
        thickness_mm: SliceThickness, not believed where the stack contradicts it; None where none says.
        helical: whether the table moved during a turn; None where none says.
        each_thickness_mm: SliceThickness of each slice, where it differs from slice to slice; else empty.
    """

    thickness_mm: float | None = None
    helical: bool | None = None
    each_thickness_mm: tuple[float, ...] = ()

    @classmethod
    def of(cls, scan: Scan) -> "Tags":
        """The tags of a scan that was read."""
        return cls(scan.thickness_mm, scan.helical, scan.each_thickness_mm)

    @property
    def mean_thickness_mm(self) -> float | None:
        """SliceThickness, where it differs the mean of all slices; None where none says."""
        return float(np.mean(self.each_thickness_mm)) if self.each_thickness_mm else self.thickness_mm


@dataclass(frozen=True)
class Acquisition:
    """What a user and the tags say of how thick slices were acquired.

    Attributes:
        profile: of the slices as the user tells it, which is believed; `auto` has it found from tags and noise.
        thickness_mm: their full width at half maximum, which is believed; None where the user tells none.
        tags: of the scan.
    """

    profile: Profile | Auto = "auto"
    thickness_mm: float | None = None
    tags: Tags = Tags()

    def __post_init__(self) -> None:
        """Refuse a thickness that no slice can have, or that the profile has already.

        Raises:
            ParamsError: the thickness, or that of the profile's weights, is out of range, or both are told.
        """
        own_mm = self.profile.fwhm_mm if isinstance(self.profile, SampledProfile) else None
        low, high = SLICE_THICKNESS_MM
        for told_mm, change in ((self.thickness_mm, "--thickness"), (own_mm, "the offsets of its weights")):
            if told_mm is not None and not low <= told_mm <= high:
                raise ParamsError(
                    f"the slices are told to be {told_mm:g} mm thick: expected {low:g} to {high:g} mm; change {change}"
                )
        if self.thickness_mm is not None and own_mm is not None:
            raise ParamsError(
                f"the thickness is told as {self.thickness_mm:g} mm, and the weights of the profile are "
                f"{own_mm:.3g} mm wide: give one of both"
            )

    @property
    def each_thickness_mm(self) -> tuple[float, ...]:
        """SliceThickness of each slice, where it differs and the user tells no other; else empty."""
        return () if self.thickness_mm or isinstance(self.profile, SampledProfile) else self.tags.each_thickness_mm


UNTOLD = Acquisition()
