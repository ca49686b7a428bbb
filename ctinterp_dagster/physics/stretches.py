"""A scan whose slices are evenly spaced only in stretches, restored on one thin grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.acquisition import Acquisition
from ctinterp_dagster.physics.interpolators import linear
from ctinterp_dagster.physics.measurement import Estimate, Measurement, measure, related
from ctinterp_dagster.physics.operator import PART_OF_A_SLICE, ThickeningOperator
from ctinterp_dagster.physics.recognition import SliceProfile
from ctinterp_dagster.scan.checks import MIN_SLICES, SLICE_SPACING_MM, check_volume
from ctinterp_dagster.scan.padding import OUTSIDE_HU, Padding
from ctinterp_dagster.scan.tilt import on_one_grid
from ctinterp_dagster.scan.volume import FloatArray, Volume

Positions = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[Any]
MOST_GAP_MM = 10.0  # between the faces of neighbouring slices: of more nobody knows what lies there


@dataclass(frozen=True)
class Stretches:
    """Measurements of the stretches of one scan, whose thin slices lie on one grid.

    Attributes:
        parts: a measurement of each stretch, in their order along z.
        starts: index in the whole grid of the first thin slice of each part.
        operator: from the thin slices that are kept to all thick ones.
        kept: (n_thin,) bool; false in gaps that are too wide.
        thin_mm: (n_thin,) centres of the thin slices along z, from that of the first thick one.
        thick_mm: (n_thick,) centres of the thick slices.
        warnings: of all parts, and what lies between them.
    """

    parts: tuple[Measurement, ...]
    starts: tuple[int, ...]
    operator: ThickeningOperator
    kept: npt.NDArray[np.bool_]
    thin_mm: Positions
    thick_mm: Positions
    warnings: tuple[str, ...]

    def join(self, estimates: Sequence[Estimate]) -> Estimate:
        """One estimate of those of the parts, padded as the scan is; it gives every measured slice back.

        Where parts overlap the finer one is taken. Between them the estimate is a mixture of both neighbouring thin
        slices: its mean is their linear interpolation, its variance that of a mixture. In gaps that are too wide the
        mean is padded, and the standard deviation is that of all measured values. What is kept is projected on all that
        was measured.

        Args:
            estimates: one a part, in the order of `parts`.

        Returns:
            The estimate on the thin grid of the whole; without standard deviation where a part has none.

        Source: mean and variance of a mixture, Fruehwirth-Schnatter 2006, Finite Mixture and Markov Switching Models,
            section 1.2.4.
        """
        if len(self.parts) == 1:
            return self.parts[0].padded(estimates[0])
        hu = self._projected(self._placed([estimate.mean.hu for estimate in estimates]))
        residual_hu = float((self.operator.forward(hu) - self._thick).abs().mean())
        mean = self._volume(self._filled(hu.numpy()))
        spreads = [estimate.std.hu for estimate in estimates if estimate.std]
        if not spreads:
            return Estimate(mean, None, residual_hu)
        means = [estimate.mean.hu.astype(np.float64) for estimate in estimates]
        squares = self._placed([spread**2 + own**2 for spread, own in zip(spreads, means, strict=True)])
        std = np.sqrt(np.maximum(squares - self._placed(means) ** 2, 0))
        unknown_hu = float(self._thick.std())
        std_there = mean.with_hu(self._filled(std, unknown_hu, np.zeros_like))
        added_noise_hu = float(np.mean([estimate.added_noise_hu for estimate in estimates]))
        return Estimate(mean, std_there, residual_hu, added_noise_hu)

    def thin(self, samples: Sequence[FloatArray]) -> Volume:
        """A thin volume of one sample of each part, as `join` makes the mean.

        Args:
            samples: (n, y, x) HU of each part, in the order of `parts`.

        Returns:
            The volume on the thin grid of the whole.
        """
        if len(self.parts) == 1:
            return self.parts[0].thin(torch.from_numpy(samples[0]))
        return self._volume(self._filled(self._projected(self._placed(samples)).numpy()))

    @property
    def before(self) -> Volume:
        """The thick slices on the thin grid, each thin one the nearest thick one's copy."""
        nearest = np.abs(self.thin_mm[self.kept, None] - self.thick_mm).argmin(axis=1)
        return self._volume(self._filled(self._thick.numpy()[nearest]))

    @property
    def _thick(self) -> Tensor:
        return torch.from_numpy(np.concatenate([part.thick.hu for part in self.parts]))

    def _placed(self, values: Sequence[AnyFloats]) -> AnyFloats:
        """Values (z, y, x) of each part on the thin slices that are kept, interpolated linearly between the parts."""
        hu = np.empty((len(self.kept), *values[0].shape[1:]), values[0].dtype)
        known = np.zeros(len(self.kept), np.bool_)
        for k in sorted(range(len(self.parts)), key=lambda k: -self.parts[k].thick.spacing_mm[0]):
            mine = slice(self.starts[k], self.starts[k] + self.parts[k].operator.n_thin)
            hu[mine], known[mine] = values[k], True
        places = np.interp(np.flatnonzero(~known), np.flatnonzero(known), np.arange(known.sum()))
        hu[~known] = linear(torch.from_numpy(hu[known]), places).numpy()
        return hu[self.kept]

    def _projected(self, hu: AnyFloats) -> Tensor:
        return self.operator.project(torch.from_numpy(hu), self._thick)

    def _volume(self, hu: FloatArray) -> Volume:
        first = self.parts[0].thick
        step_mm = float(self.thin_mm[1] - self.thin_mm[0])
        return first.with_slices(hu, float(self.thin_mm[0]) / first.spacing_mm[0], step_mm)

    def _filled(
        self,
        kept: AnyFloats,
        outside: float = OUTSIDE_HU,
        of_padding: Callable[[FloatArray], FloatArray] = np.array,
    ) -> FloatArray:
        """All thin slices of those that are kept: `outside` in gaps, and what becomes of the padding in its places."""
        values = np.full((len(self.kept), *kept.shape[1:]), outside, np.float32)
        values[self.kept] = kept
        padded = [part.padding.value_hu for part in self.parts if part.padding]
        if padded:
            masks = [p.padding.mask if p.padding else np.zeros(p.thick.hu.shape, np.bool_) for p in self.parts]
            slices = [of_padding(p.padding.hu if p.padding else p.thick.hu) for p in self.parts]
            nearest = np.interp(self.thin_mm, self.thick_mm, np.arange(len(self.thick_mm)))
            values = Padding(np.concatenate(masks), np.concatenate(slices), padded[0]).put_back(values, nearest)
            values[~self.kept] = outside
        return values


def measure_stretches(
    volumes: Sequence[Volume],
    target_mm: float,
    acquisitions: Sequence[Acquisition],
    *,
    thin_thickness_mm: float | None = None,
    force: bool = False,
    name: str = "",
) -> Stretches:
    """Check the stretches of a scan and relate them to one thin grid, from the first slice's outer face to the last's.

    Args:
        volumes: of evenly spaced slices each, in their order along z.
        target_mm: distance of the thin slices, 0.1 mm or more and less than the finest stretch's.
        acquisitions: what user and tags say of each stretch.
        thin_thickness_mm: of the thin slices, where they overlap; None for their distance.
        force: take what does not look like CT in HU all the same, with a warning.
        name: of the file or folder, for messages.

    Returns:
        A measurement of each stretch, and their common thin grid, positions in mm.

    Raises:
        ParamsError: the target or the thin slices' thickness is out of range, or a Gaussian is told for slices that are
            no thicker than the thin ones.
        ScanError: it is no axial CT in HU, or the stretches' pixels lie on no common grid.
    """
    thin = thin_thickness_mm
    if len(volumes) == 1:
        part = measure(volumes[0], target_mm, acquisitions[0], thin_thickness_mm=thin, force=force, name=name)
        centres_mm = _centres_mm(part, 0.0)
        thin_mm = part.operator.thin_positions * part.thick.spacing_mm[0]
        kept = np.ones(len(thin_mm), np.bool_)
        return Stretches((part,), (0,), part.operator, kept, thin_mm, centres_mm, part.warnings)
    finest_mm = min(v.spacing_mm[0] for v in volumes)
    if not SLICE_SPACING_MM[0] <= target_mm < finest_mm:
        raise ParamsError(
            f"{name}: the thin slices would be {target_mm:g} mm apart: expected {SLICE_SPACING_MM[0]:g} mm or more, "
            f"and less than in the finest stretch of the scan, {finest_mm:g} mm; change --spacing or --factor"
        )
    volumes = on_one_grid(volumes)
    whole = replace(volumes[0], hu=np.concatenate([v.hu for v in volumes]))
    forced = check_volume(whole, min_slices=MIN_SLICES, force=force, name=name)
    pairs = list(zip(volumes, acquisitions, strict=True))

    def relate(of_scan: SliceProfile | None) -> list[Measurement]:
        return [related(volume, target_mm, own, thin_thickness_mm=thin, of_scan=of_scan) for volume, own in pairs]

    parts = relate(None)
    if (known := _measured(parts)) and len({str(part.operator.profile) for part in parts}) > 1:
        parts = relate(known)
    widths_mm = [own.thickness_mm or own.tags.thickness_mm or v.spacing_mm[0] for v, own in pairs]
    joined = _on_one_thin_grid(parts, widths_mm, target_mm)
    warnings = dict.fromkeys([*forced, *(warning for part in parts for warning in part.warnings), *joined.warnings])
    return replace(joined, warnings=tuple(warnings))


def _measured(parts: Sequence[Measurement]) -> SliceProfile | None:
    """The slice profile that was measured best; None where none was."""
    found = [part.slice_profile for part in parts if part.slice_profile]
    measured = [(one.noise.standard_error, one) for one in found if one.noise and one.confidence == "measured"]
    return min(measured, key=lambda pair: pair[0])[1] if measured else None


def _centres_mm(part: Measurement, start_mm: float) -> Positions:
    return start_mm + part.thick.spacing_mm[0] * np.arange(part.thick.depth, dtype=np.float64)


def _on_one_thin_grid(parts: Sequence[Measurement], widths_mm: Sequence[float], target_mm: float) -> Stretches:
    """Parts, of slices as thick as told, over stretches of one thin grid, with what there is to tell of the gaps."""
    first = parts[0].thick
    starts_mm = [float(np.subtract(p.thick.origin_mm, first.origin_mm) @ first.direction[:, 2]) for p in parts]
    centres_mm = [_centres_mm(part, start) for part, start in zip(parts, starts_mm, strict=True)]
    halves_mm = [min(w, part.thick.spacing_mm[0]) / 2 for part, w in zip(parts, widths_mm, strict=True)]
    ends_mm = [(own[0] - half, own[-1] + half) for own, half in zip(centres_mm, halves_mm, strict=True)]
    low, high = min(ends_mm)[0], max(end for _, end in ends_mm)
    count = int((high - low) / target_mm + PART_OF_A_SLICE)
    thin_mm = (high + low - (count - 1) * target_mm) / 2 + target_mm * np.arange(count, dtype=np.float64)
    placed, starts = [], []
    for part, start_mm, (bottom, top) in zip(parts, starts_mm, ends_mm, strict=True):
        own = np.flatnonzero((thin_mm + target_mm / 2 > bottom) & (thin_mm - target_mm / 2 < top))
        placed.append(replace(part, operator=_over(part, thin_mm[own] - start_mm)))
        starts.append(int(own[0]))
    thick_mm = np.concatenate(centres_mm)
    matrix = np.concatenate([_over(p, thin_mm - start).matrix for p, start in zip(parts, starts_mm, strict=True)])
    between, gap_warnings = _gaps(thin_mm, thick_mm, np.repeat(widths_mm, [p.thick.depth for p in parts]))
    kept = between | matrix.any(axis=0)  # a thin slice that reaches out of a gap is a part of what was measured
    operator = replace(
        parts[0].operator,
        matrix=matrix[:, kept],
        thin_positions=np.interp(thin_mm[kept], thick_mm, np.arange(len(thick_mm))),
        thick_spacing_mm=float(np.diff(thick_mm).mean()),
        thick_thickness_mm=float(np.mean([part.thickness_mm for part in parts])),
    )
    return Stretches(tuple(placed), tuple(starts), operator, kept, thin_mm, thick_mm, tuple(gap_warnings))


def _over(part: Measurement, thin_mm: Positions) -> ThickeningOperator:
    """The operator of a part over other thin slices, whose centres are given from its first thick one's."""
    old, step_mm = part.operator, float(thin_mm[1] - thin_mm[0])
    return ThickeningOperator.from_geometry(
        n_thick=old.n_thick,
        thick_spacing_mm=old.thick_spacing_mm,
        thick_thickness_mm=old.thick_thickness_mm,
        n_thin=len(thin_mm),
        thin_spacing_mm=step_mm,
        thin_thickness_mm=old.thin_thickness * step_mm,
        first_thin_offset_mm=float(thin_mm[0]),
        profile=old.profile,
    )


def _gaps(thin_mm: Positions, thick_mm: Positions, thickness_mm: Positions) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Which thin slices are kept, and what there is to tell of the gaps between thick ones."""
    faces = zip(thick_mm[:-1] + thickness_mm[:-1] / 2, thick_mm[1:] - thickness_mm[1:] / 2, strict=True)
    kept, gap_warnings = np.ones(len(thin_mm), np.bool_), []
    for low, high in faces:
        if high - low > MOST_GAP_MM:
            kept &= (thin_mm <= low) | (thin_mm >= high)
            gap_warnings.append(
                f"nothing was measured for {high - low:.1f} mm, more than {MOST_GAP_MM:g} mm: the thin slices there "
                f"are left out ({OUTSIDE_HU:g} HU)"
            )
        elif high - low > thickness_mm.min() / 2:
            gap_warnings.append(f"nothing was measured for {high - low:.1f} mm: the thin slices there are interpolated")
    return kept, gap_warnings
