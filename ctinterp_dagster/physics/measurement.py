"""A thick scan as a measurement of a thin one: what every method restores, and what it gives."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.physics.acquisition import UNTOLD, Acquisition
from ctinterp_dagster.physics.grid_remarks import not_exact, not_measured
from ctinterp_dagster.physics.grids import operator_for, thicken, thin_volume
from ctinterp_dagster.physics.operator import PART_OF_A_SLICE, ThickeningOperator, slices_within
from ctinterp_dagster.physics.oversampling import oversampling
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.physics.recognition import SliceProfile, recognise
from ctinterp_dagster.scan.checks import MIN_SLICES, SLICE_SPACING_MM, check_volume
from ctinterp_dagster.scan.padding import Padding, without_padding
from ctinterp_dagster.scan.pairs import LEAST_SHARED
from ctinterp_dagster.scan.volume import Volume


@dataclass(frozen=True)
class Estimate:
    """A thin volume that explains a measurement.

    Attributes:
        mean: the posterior mean, or the one estimate of a classical method, HU.
        std: the standard deviation on the same grid, HU; None where no samples were drawn.
        residual_hu: mean |A x_hat - y|.
        added_noise_hu: standard deviation of the noise that the thick slices tell of and samples of the model lacked,
            HU, which these were given; of several stretches the mean.
    """

    mean: Volume
    std: Volume | None
    residual_hu: float
    added_noise_hu: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """Thick slices, how they came of thin ones, and the thin ones where they are known.

    Attributes:
        thick: the scan, its padding filled.
        operator: from the thin grid to the thick one.
        truth: the thin slices; None where nobody knows them.
        padding: what was filled; None where there is none.
        slice_profile: how the operator's profile was found; None where the thick slices were made with it.
        warnings: what a user should know, a sentence each.
    """

    thick: Volume
    operator: ThickeningOperator
    truth: Volume | None = None
    padding: Padding | None = None
    slice_profile: SliceProfile | None = None
    warnings: tuple[str, ...] = ()

    @property
    def thick_hu(self) -> Tensor:
        """The thick slices, (k, y, x) float32 HU; not to be written to."""
        return torch.from_numpy(self.thick.hu)

    @property
    def known(self) -> Volume:
        """The thin volume that was measured, where it is known; asserts that it is."""
        assert self.truth is not None
        return self.truth

    @cached_property
    def oversampling(self) -> int:
        """How many pixels along a row or a column a pixel that the networks see is the mean of, 1 or 2."""
        return oversampling(self.thick.hu)

    @property
    def factor(self) -> float:
        """Thin slices a thick one, to thousandths, as files round the spacings that they keep."""
        return round(1 / self.operator.thin_distance, 3)

    @property
    def aspect(self) -> float:
        """Distance of the thin slices over the size of a pixel."""
        pixel_mm = (self.thick.spacing_mm[1] + self.thick.spacing_mm[2]) / 2
        return self.operator.thin_distance * self.thick.spacing_mm[0] / pixel_mm

    @property
    def thickness_mm(self) -> float:
        """Full width at half maximum of the thick slices that the operator takes."""
        return self.operator.thick_thickness_mm * (self.thick.spacing_mm[0] / self.operator.thick_spacing_mm)

    def estimate(self, hu: Tensor, std_hu: Tensor | None = None, added_noise_hu: float = 0.0) -> Estimate:
        """Values on the thin grid in their place in space, and how well they explain the thick slices.

        Args:
            hu: (n, y, x) HU on the CPU.
            std_hu: their standard deviation, the same shape; None where it is not known.
            added_noise_hu: standard deviation of noise that samples were given in addition.

        Returns:
            Mean and standard deviation as volumes, and the mean |A x - y| in HU.
        """
        mean = thin_volume(self.thick, self.operator, hu)
        residual_hu = float((self.operator.forward(hu) - self.thick_hu).abs().mean())
        return Estimate(mean, None if std_hu is None else mean.with_hu(std_hu.numpy()), residual_hu, added_noise_hu)

    def thin(self, hu: Tensor) -> Volume:
        """Thin slices (n, y, x) HU on the CPU, in their place in space, padded as the thick ones are."""
        return self._filled(thin_volume(self.thick, self.operator, hu), self.padding)

    def padded(self, estimate: Estimate) -> Estimate:
        """An estimate of it, padded as the scan is; the standard deviation is 0 HU there."""
        if self.padding is None:
            return estimate
        silent = replace(self.padding, hu=np.zeros_like(self.padding.hu))
        std = estimate.std and self._filled(estimate.std, silent)
        return replace(estimate, mean=self._filled(estimate.mean, self.padding), std=std)

    def _filled(self, volume: Volume, padding: Padding | None) -> Volume:
        return volume.with_hu(padding.put_back(volume.hu, self.operator.thin_positions)) if padding else volume


Method = Callable[[Measurement], Estimate]
"""Every way to restore a thick scan: classical, learned, or read from a file."""


def measure(
    scan: Volume,
    target_mm: float,
    acquisition: Acquisition = UNTOLD,
    *,
    thin_thickness_mm: float | None = None,
    force: bool = False,
    name: str = "",
) -> Measurement:
    """The measurement of a thick scan on the grid that is asked for, checked before anything is computed.

    Args:
        scan: thick slices, HU, as a reader gives them: padding is found here.
        target_mm: distance of the thin slices, 0.1 mm or more and less than the scan's.
        acquisition: what user and tags say of the thick slices.
        thin_thickness_mm: of the thin slices, where they overlap; None for their distance.
        force: take what does not look like CT in HU all the same, with a warning.
        name: of the file or folder, for messages.

    Returns:
        The measurement, without truth; its warnings say what was doubtful.

    Raises:
        ScanError: the scan is no axial CT in HU of 3 slices or more; the subclass is the reason.
        ParamsError: `target_mm` or `thin_thickness_mm` is out of range, or a Gaussian is told for slices that are no
            thicker than the thin ones.
    """
    if target_mm < SLICE_SPACING_MM[0]:
        raise ParamsError(
            f"{name}: the thin slices would be {target_mm:g} mm apart: expected at least {SLICE_SPACING_MM[0]:g} mm; "
            "change --spacing or --factor"
        )
    forced = check_volume(scan, min_slices=MIN_SLICES, force=force, name=name)
    measurement = related(scan, target_mm, acquisition, thin_thickness_mm=thin_thickness_mm)
    return replace(measurement, warnings=(*forced, *measurement.warnings))


def related(
    scan: Volume,
    target_mm: float,
    acquisition: Acquisition,
    *,
    thin_thickness_mm: float | None,
    of_scan: SliceProfile | None = None,
) -> Measurement:
    """The measurement of thick slices that were checked, on the grid that is asked for; no truth.

    Args:
        scan: the thick slices, HU, with padding.
        target_mm: distance of the thin slices, less than the scan's.
        acquisition: what user and tags say of them.
        thin_thickness_mm: of the thin slices, where they overlap; None for their distance.
        of_scan: what was measured in other slices of the scan, which counts in the place of the stack's own noise.

    Returns:
        The measurement, with the padding and warnings that were found.

    Raises:
        ParamsError: a target, a thickness or a profile is out of range.
    """
    thick, padding = without_padding(scan)
    distance_mm = thick.spacing_mm[0]
    thin_mm = thin_thickness_mm or target_mm
    found = recognise(thick.hu, distance_mm, acquisition, thin_mm=thin_mm, of_scan=of_scan)

    def operator_of(width_mm: float) -> ThickeningOperator:
        return operator_for(thick.depth, distance_mm, width_mm, target_mm, found.profile, thin_thickness_mm)

    operator = operator_of(found.thickness_mm)
    if each := acquisition.each_thickness_mm:
        parts = {mm: operator_of(found.thickness_mm * mm / float(np.mean(each))).matrix for mm in each}
        operator = replace(operator, matrix=np.stack([parts[mm][k] for k, mm in enumerate(each)]))
    outside = (
        f"padded with {padding.value_hu:g} HU outside of the field of view: it comes back as it is" if padding else None
    )
    own = "each slice is taken to be as thick as its own SliceThickness says" if each else None
    remarks = (outside, own, *found.warnings, not_exact(operator), not_measured(operator, thick))
    return Measurement(thick, operator, None, padding, found, tuple(filter(None, remarks)))


def contiguous(thick: Volume, factor: float, profile: Profile) -> Measurement:
    """What `thicken` made, and nobody knows of what.

    Args:
        thick: slices that touch, the first from the outer face of the first thin slice on.
        factor: thin slices a thick one.
        profile: that they were thickened with.

    Returns:
        The measurement, without truth.
    """
    return Measurement(thick, ThickeningOperator.from_factor(slices_within(thick.depth, factor), factor, profile))


def synthetic(
    thin: Volume, thick: Volume, factor: float, profile: Profile, thin_thickness_mm: float | None = None
) -> Measurement:
    """A thin scan, cut to the slices that reach into whole thick ones, and what `thicken` made of it.

    Args:
        thin: the truth.
        thick: of the truth, or of finer slices behind it.
        factor: thin slices a thick one.
        profile: that it was thickened with.
        thin_thickness_mm: of the thin slices, where they overlap; None where they touch.

    Returns:
        The measurement, with the thin scan as its truth.
    """
    operator = contiguous(thick, factor, profile).operator
    if thin_thickness_mm is not None:
        operator = replace(operator, thin_thickness=thin_thickness_mm / thin.spacing_mm[0])
    kept = thin.with_slices(thin.hu[: operator.n_thin], 0, thin.spacing_mm[0])
    return Measurement(thick, operator, kept)


def slices_a_mean(thin: Volume, spacing_mm: float | None) -> float:
    """How many slices of a scan a slice of `spacing_mm` is the mean of, whole where it nearly is.

    Args:
        thin: the scan.
        spacing_mm: at least the slice distance of the scan; None for that.

    Returns:
        A ratio from 1 up; 1 for None.

    Raises:
        ParamsError: the scan's own slices are thicker.
    """
    own_mm = thin.spacing_mm[0]
    ratio = (spacing_mm or own_mm) / own_mm
    ratio = float(round(ratio)) if abs(ratio - round(ratio)) < PART_OF_A_SLICE else ratio
    if ratio < 1:
        raise ParamsError(
            f"the truth has a slice every {own_mm:g} mm, and none every {spacing_mm:g} mm is known: give {own_mm:g} mm "
            "or more"
        )
    return ratio


def simulated(
    thin: Volume,
    factor: float,
    profile: Profile,
    spacing_mm: float | None = None,
    thin_thickness_mm: float | None = None,
) -> Measurement:
    """A thin scan as the truth on a grid that may be coarser, and the thick scan that its own slices make.

    On a coarser grid the truth is means of the slices, and the thick slices see what lies within them, as those of a
    scanner do.

    Args:
        thin: the scan.
        factor: slices of the truth a thick one.
        profile: to thicken with.
        spacing_mm: slice distance of the truth; the scan's own where None.
        thin_thickness_mm: of the scan's slices, where they overlap; None where they touch.

    Returns:
        The measurement with its truth.

    Raises:
        ParamsError: the scan is coarser than `spacing_mm`, or its slices are thinner than their distance or no thinner
            than the thick ones.

    Source: the thickness of a mean of slices that overlap: variances of convolved profiles add, so that it is
        sqrt(T^2 + spacing_mm^2 - d^2) for slices of T every d.
    """
    ratio, own_mm = slices_a_mean(thin, spacing_mm), thin.spacing_mm[0]
    truth = thicken(thin, ratio, "box") if ratio > 1 else thin
    truth_mm, thickness_mm = truth.spacing_mm[0], None
    if thin_thickness_mm is not None:
        if not own_mm * (1 - PART_OF_A_SLICE) <= thin_thickness_mm < factor * truth_mm:
            raise ParamsError(
                f"the thin slices must be at least as thick as their distance, {own_mm:g} mm, and thinner than the "
                f"thick ones of {factor * truth_mm:g} mm, got {thin_thickness_mm:g} mm: change --thin-thickness"
            )
        thickness_mm = math.sqrt(thin_thickness_mm**2 + truth_mm**2 - own_mm**2)
    thick = thicken(thin, factor * ratio, profile)
    filled = int((truth.depth + PART_OF_A_SLICE) / factor)
    return synthetic(truth, thick.with_slices(thick.hu[:filled], 0, thick.spacing_mm[0]), factor, profile, thickness_mm)


def paired(thick: Volume, thin: Volume, acquisition: Acquisition = UNTOLD) -> Measurement:
    """The measurement of the extent that two scans share along z, by positions in mm; nothing is resampled.

    Args:
        thick: the thick scan.
        thin: the thin scan, on the same pixel grid.
        acquisition: what user and tags say of the thick slices.

    Returns:
        The measurement of the shared extent, with the thin slices in it as its truth.

    Raises:
        GeometryError: the pixel grids differ, or the scans share fewer than 6 thick slices.
        ParamsError: no thin slice lies in a thick one, or a Gaussian is told for slices that are no thicker than the
            thin ones.
    """
    between_mm = thick.direction.T @ np.subtract(thin.origin_mm, thick.origin_mm)
    _check_pixels(thick, thin, float(np.abs(between_mm[:2]).max()))
    step, fine = thick.spacing_mm[0], thin.spacing_mm[0]
    found = recognise(thick.hu, step, acquisition, thin_mm=fine)
    ends_mm = (between_mm[2] - fine / 2, between_mm[2] + (thin.depth - 0.5) * fine)
    edge = 0.01 * fine  # positions are rounded
    centres = np.arange(thick.depth) * step
    within = np.flatnonzero((centres - step / 2 >= ends_mm[0] - edge) & (centres + step / 2 <= ends_mm[1] + edge))
    if within.size < LEAST_SHARED:
        raise GeometryError(
            f"the thin scan reaches from {ends_mm[0]:.1f} to {ends_mm[1]:.1f} mm along the thick one's axis, which "
            f"reaches from {-step / 2:.1f} to {centres[-1] + step / 2:.1f} mm: expected to share "
            f"{LEAST_SHARED} thick slices, got {within.size}"
        )
    first, last = int(within[0]), int(within[-1])
    places = between_mm[2] + np.arange(thin.depth) * fine
    inside = np.flatnonzero((places > centres[first] - step / 2) & (places < centres[last] + step / 2))
    cut = thick.with_slices(thick.hu[first : last + 1], first, step)
    truth = thin.with_slices(thin.hu[inside[0] : inside[-1] + 1], int(inside[0]), fine)
    operator = ThickeningOperator.from_geometry(
        n_thick=cut.depth,
        thick_spacing_mm=step,
        thick_thickness_mm=found.thickness_mm,
        n_thin=truth.depth,
        thin_spacing_mm=fine,
        thin_thickness_mm=fine,
        first_thin_offset_mm=float(places[inside[0]] - centres[first]),
        profile=found.profile,
    )
    return Measurement(cut, operator, truth, None, found, found.warnings)


def _check_pixels(thick: Volume, thin: Volume, shift_mm: float) -> None:
    grids = [[*v.hu.shape[1:], *v.spacing_mm[1:], *v.direction.ravel().round(6).tolist()] for v in (thick, thin)]
    same = np.allclose(grids[0], grids[1], rtol=0, atol=1e-3)
    if not same or shift_mm > 0.1 * min(thick.spacing_mm[1:]):
        raise GeometryError(
            f"the pixel grids differ: {grids[0]} against {grids[1]} (size, spacing in mm, axes), shifted by "
            f"{shift_mm:.3f} mm: expected one; give reconstructions of one scan with the same field of view"
        )
