"""One DICOM series that holds several scans: passes, phases, stretches of another slice distance; and its copies."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctinterp_dagster.errors import (
    DuplicateSlicesError,
    MissingSlicesError,
    MixedThicknessError,
    SliceSpacingError,
    UnevenSpacingError,
)
from ctinterp_dagster.scan.checks import SLICE_THICKNESS_MM
from ctinterp_dagster.scan.io.dicom import DicomFile
from ctinterp_dagster.scan.io.grid import (
    ROUNDING_MM,
    along_normal,
    as_even,
    as_thick,
    is_regular,
    listed_mm,
    missing_between,
    mixture,
    rounding_mm,
    thicknesses_mm,
    usual_step,
    without_scout,
)
from ctinterp_dagster.scan.io.plane import LATE, MARKS, SETTINGS, Plane, named
from ctinterp_dagster.scan.volume import DoubleArray

LEAST_SLICES = 3  # of a pass, and of stretches on average: two always lie on a regular grid


@dataclass(frozen=True)
class Part:
    """A scan that is in a series, maybe among others.

    Attributes:
        files: its files with its own planes.
        remarks: what a user should know of it.
        uneven: of a stretch: what is uneven about all of them; None of a scan by itself.
        joined: whether the series consists of the stretches of one scan.
    """

    files: list[DicomFile]
    remarks: tuple[str, ...]
    uneven: SliceSpacingError | None = None
    joined: bool = False


def without_copies(files: Sequence[DicomFile]) -> tuple[list[DicomFile], tuple[str, ...]]:
    """Drop files that are the same, byte for byte, as another one of their series.

    Args:
        files: headers of one series.

    Returns:
        The other files, in their order, and a sentence a folder of copies.

    Raises:
        DuplicateSlicesError: two folders have one image (SOPInstanceUID, place) in two files that differ.
    """
    kept: list[DicomFile] = []
    first: dict[object, list[DicomFile]] = defaultdict(list)
    copies: dict[Path, tuple[int, Path]] = {}
    for file in files:
        twins = first[file.instance, tuple(p.position_mm for p in file.planes)]
        same = next((t for t in twins if filecmp.cmp(t.file, file.file, shallow=False)), None)
        if same:
            number, origin = copies.get(file.file.parent, (0, same.file.parent))
            copies[file.file.parent] = (number + 1, origin)
            continue
        other = next((t for t in twins if file.instance and t.file.parent != file.file.parent), None)
        if other and file.planes:
            one, two = named(other.planes[0], file.planes[0])
            raise DuplicateSlicesError(
                f"{one!r} and {two!r} are one image (same SOPInstanceUID and place) and differ: expected one folder a "
                "series, or copies that are the same; give one of the two folders"
            )
        twins.append(file)
        kept.append(file)
    return kept, tuple(_told(*copy, folder) for folder, copy in copies.items())


def _told(number: int, origin: Path, folder: Path) -> str:
    if origin == folder:
        return f"{number} file(s) are copies, byte for byte, of others in the same folder, and passed over"
    top = os.path.commonpath([origin, folder])
    one, two = (repr(place.relative_to(top).as_posix()) for place in (folder, origin))
    return f"{number} file(s) in {one} are copies, byte for byte, of those in {two}, and passed over"


def _order(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label


def _passes(along_mm: DoubleArray, labels: Sequence[str]) -> list[list[int]]:
    """Indices of slices in passes, which follow each other in the order of the labels.

    A pass goes on as long as the slices of the next label lie beyond its own, so that slabs of one scan, each of a
    number and time of its own, stay together; where they come among its own a new pass begins.

    Args:
        along_mm: (n,) mm along the normal.
        labels: n of them, such as acquisition numbers.

    Returns:
        Indices by pass; every slice is in one.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for k, label in enumerate(labels):
        groups[label].append(k)
    passes: list[list[int]] = []
    for label in sorted(groups, key=_order):
        new = groups[label]
        last = passes[-1] if passes else new
        low, high = along_mm[last].min() - ROUNDING_MM, along_mm[last].max() + ROUNDING_MM
        if passes and (along_mm[new].max() < low or along_mm[new].min() > high):
            last.extend(new)
        else:
            passes.append(list(new))
    return passes


def _separated(planes: Sequence[Plane], along_mm: DoubleArray, rounding: float) -> tuple[list[list[int]], str]:
    """Sorted planes in passes or phases, and the name of what tells them apart; one pass where nothing does."""
    collide = bool(np.diff(along_mm).min() <= ROUNDING_MM)
    for k, name in enumerate(MARKS):
        labels = [p.marks[k] for p in planes] if planes[0].marks else []
        if len(set(labels)) < 2 or (k >= LATE and not collide):
            continue
        passes = [sorted(members) for members in _passes(along_mm, labels)]
        whole = all(len(p) >= LEAST_SLICES and is_regular(along_mm[p], rounding) for p in passes)
        several = max(map(len, passes)) > 1
        labelled = collide and several and len(passes) == len(set(labels))  # a label each: judged each on its own
        apart = all(len(p) == 1 or np.diff(along_mm[p]).min() > ROUNDING_MM for p in passes)
        if len(passes) > 1 and (whole or (labelled and apart)):
            return passes, name
    return [list(range(len(planes)))], ""


def _stretches(planes: Sequence[Plane], along_mm: DoubleArray, rounding: float) -> list[slice]:
    """Stretches of sorted planes, each of one SliceThickness and on a regular grid; one where these explain nothing."""
    whole, starts = [slice(0, len(planes))], [0]
    if len(planes) < LEAST_SLICES:
        return whole
    even = is_regular(along_mm, rounding) and len(thicknesses_mm(planes)) < 2
    if even or np.diff(along_mm).min() <= ROUNDING_MM:
        return whole
    for k in range(1, len(planes)):
        own = slice(starts[-1], k + 1)
        pair = k - starts[-1] < 2
        if len(thicknesses_mm(planes[own])) > 1 or not (pair or is_regular(along_mm[own], rounding)):
            starts.append(k)
    if starts[-1] == len(planes) - 1 and len(thicknesses_mm(planes[-2:])) < 2:
        starts[-1] -= 1  # the last slice and the one before it
    lengths = np.diff([*starts, len(planes)])
    explained = lengths.min() >= 2 and lengths.mean() >= LEAST_SLICES
    return [slice(a, b) for a, b in pairwise([*starts, len(planes)])] if explained else whole


def _changes(
    planes: Sequence[Plane], along_mm: DoubleArray, stretches: Sequence[slice], rounding: float
) -> list[list[SliceSpacingError]]:
    """What is uneven at the ends of each stretch of sorted planes, and within one of two slices.

    Args:
        planes: n, sorted along the normal.
        along_mm: (n,) mm along the normal.
        stretches: which planes each has.
        rounding: mm along the normal that rounding may have moved one.

    Returns:
        Errors for each stretch, in the order of the stretches; empty where all is even.
    """
    found = [_Stretch(own, usual_step(along_mm[own]), thicknesses_mm(planes[own])) for own in stretches]
    changes: list[list[SliceSpacingError]] = [[] for _ in found]
    for k, own in enumerate(found):
        beside = next((one for one in (*found[k + 1 : k + 2], *found[k - 1 : k]) if own.lacks(one, rounding)), None)
        if beside:
            found[k] = own._replace(distance_mm=beside.distance_mm)
            changes[k] += _change(planes, along_mm, own.planes.start, found[k], found[k], rounding)
    for k, (before, after) in enumerate(pairwise(found)):
        change = _change(planes, along_mm, before.planes.stop - 1, before, after, rounding)
        changes[k] += change
        changes[k + 1] = change + changes[k + 1]
    return changes


class _Stretch(NamedTuple):
    """Which of sorted planes it is, its slice distance, and its SliceThickness, where a plane of it has one."""

    planes: slice
    distance_mm: float
    thickness_mm: list[float]

    def lacks(self, other: "_Stretch", rounding: float) -> bool:
        """Whether it is of two slices, between which others as far apart as those of the other one are missing."""
        two = self.planes.stop - self.planes.start == 2
        return two and self.is_as_thick(other) and missing_between(self.distance_mm, other.distance_mm, rounding) > 0

    def is_as_thick(self, other: "_Stretch") -> bool:
        """Whether nothing tells that slices of the other one are thicker or thinner."""
        return all(as_thick(*both) for both in zip(self.thickness_mm, other.thickness_mm, strict=False))


def _change(
    planes: Sequence[Plane], along_mm: DoubleArray, k: int, before: _Stretch, after: _Stretch, rounding: float
) -> list[SliceSpacingError]:
    """What changes from the k-th of sorted planes, of one stretch, to the next one, of another.

    Args:
        planes: n, sorted along the normal.
        along_mm: (n,) mm along the normal.
        k: index of a plane, below n - 1.
        before: the stretch of the k-th plane.
        after: the stretch of the next one.
        rounding: mm along the normal that rounding may have moved one.

    Returns:
        One error or none.
    """
    step_mm, usual_mm = float(along_mm[k + 1] - along_mm[k]), (before.distance_mm + after.distance_mm) / 2
    kind: type[SliceSpacingError] = UnevenSpacingError
    words = []
    if not as_even(before.distance_mm, after.distance_mm, rounding):
        words.append(f"the slice distance changes from {before.distance_mm:.4g} to {after.distance_mm:.4g} mm")
    elif missing := missing_between(step_mm, usual_mm, rounding):
        kind = MissingSlicesError
        words.append(f"{missing} slice(s) missing")
    elif not as_even(step_mm, usual_mm, rounding):
        words.append(f"a step of {step_mm:.4g} mm")
    if not before.is_as_thick(after):
        kind, verb = (kind, "") if words else (MixedThicknessError, " changes")
        words.append(f"SliceThickness{verb} from {before.thickness_mm[0]:.4g} to {after.thickness_mm[0]:.4g} mm")
    one, other = named(planes[k], planes[k + 1])
    return [kind(f"{' and '.join(words)} between {one!r} and {other!r}")] if words else []


def _uneven(changes: Sequence[Sequence[SliceSpacingError]]) -> SliceSpacingError:
    """Why stretches are no regular stack."""
    reasons = [change for own in changes for change in own] or [UnevenSpacingError("they drift off an even grid")]
    kind = type(reasons[0])
    what = "slices are unevenly spaced: " if kind is UnevenSpacingError else ""
    return kind(
        f"{what}{'; '.join(dict.fromkeys(map(str, reasons)))}: expected one slice distance and thickness, and no slice "
        "missing; export the series again (`ctinterp interpolate` takes it as it is)"
    )


def _mixed(planes: Sequence[Plane]) -> tuple[str, ...]:
    """What there is to tell of planes in no stretches whose SliceThickness differs."""
    known_mm, silent = thicknesses_mm(planes), sum(plane.thickness_mm is None for plane in planes)
    if len(known_mm) < 2:
        return ()
    absent = f", and absent from {silent} slice(s): it is not believed" if silent else ""
    return (f"SliceThickness is {listed_mm(known_mm)} from slice to slice{absent}",)


def _impossible(planes: Sequence[Plane]) -> tuple[str, ...]:
    """What there is to tell of planes whose SliceThickness no slice can have."""
    odd = [plane for plane in planes if plane.tagged_mm is not None and plane.thickness_mm is None]
    if not odd:
        return ()
    low, high = SLICE_THICKNESS_MM
    said = (
        f"SliceThickness is {odd[0].tagged_mm:g} mm in {odd[0].file.name!r} ({len(odd)} slice(s) have such a one): "
        f"expected {low:g} to {high:g} mm, so it is taken for unknown"
    )
    return (said,)


def _settings(planes: Sequence[Plane]) -> tuple[str, ...]:
    """The settings of which the planes of one scan, sorted, have several, and between which files they change first."""
    remarks = []
    for name in SETTINGS if planes[0].marks else ():
        mark = list(MARKS).index(name)
        known = [plane for plane in planes if plane.marks[mark]]
        change = next((pair for pair in pairwise(known) if pair[0].marks[mark] != pair[1].marks[mark]), None)
        if change:
            one, other = named(*change)
            values = len({plane.marks[mark] for plane in known})
            remarks.append(
                f"{name} has {values} values along the scan and changes first between {one!r} and {other!r}: "
                f"{SETTINGS[name]}"
            )
    return tuple(remarks)


def scans_of(files: Sequence[DicomFile]) -> list[Part]:
    """The scans that the slices of one series are.

    Slices of two acquisitions, times or phases are two scans where they lie at the same place, or among each other; a
    scan of slabs is one. Where the slice distance or SliceThickness changes, or slices are missing, each stretch of
    even slices is a scan.

    Args:
        files: headers of one series.

    Returns:
        One part or more, each with its files and frames.
    """
    images = [f for f in files if not f.is_companion]
    planes = without_scout([p for f in images for p in f.planes])
    if len(planes) < LEAST_SLICES or mixture(planes) or not all(f.planes for f in images):
        return [Part(list(files), ())]
    ordered, along, _, direction = along_normal(planes)
    rounding = rounding_mm(direction[:, 2])
    passes, mark = _separated(ordered, along, rounding)
    parts: list[Part] = []
    for number, members in enumerate(passes, start=1):
        own = [ordered[k] for k in members]
        remarks = (f"pass {number} of {len(passes)} in one series, told apart by {mark}",) if mark else ()
        remarks = (*remarks, *_settings(own), *_impossible(own))
        stretches = _stretches(own, along[members], rounding)
        if len(stretches) == 1:
            remarks = (*remarks, *_mixed(own))
            parts.append(Part(_files_of(files, own) if mark else list(files), remarks))
            continue
        changes = _changes(own, along[members], stretches, rounding)
        uneven = _uneven(changes)
        for k, stretch in enumerate(stretches):
            part = own[stretch]
            where = (
                f"stretch {k + 1} of {len(stretches)}, from {part[0].file.name!r} to {part[-1].file.name!r}, every "
                f"{usual_step(along[members][stretch]):.3g} mm"
            )
            about = (*remarks, where, *map(str, changes[k]))
            parts.append(Part(_files_of(files, part), about, uneven, joined=not mark))
    return parts


def _files_of(files: Sequence[DicomFile], planes: Sequence[Plane]) -> list[DicomFile]:
    of_file: dict[Path, list[Plane]] = defaultdict(list)
    for plane in planes:
        of_file[plane.file].append(plane)
    return [replace(f, planes=tuple(of_file[f.file])) for f in files if f.file in of_file]


def incomplete(files: Sequence[DicomFile]) -> tuple[str, ...]:
    """What the headers of a series say of images that are not there; nothing where they do not tell."""
    remarks = []
    slices = sum(max(len(f.planes), 1) for f in files)
    expected = max(f.expected for f in files)
    if expected > slices:
        remarks.append(f"{slices} images of {expected} that its headers count: still arriving, or exported in part")
    if (whole := max(f.concatenated for f in files)) > len(files):
        remarks.append(f"{len(files)} file(s) of {whole} that are one image (InConcatenationTotalNumber)")
    numbers = {f.counted for f in files}
    absent = max(numbers) - len(numbers)
    one_each = len(numbers) == len(files) and all(f.frames == 1 for f in files)
    if one_each and min(numbers) > 0 and absent > 0:
        remarks.append(
            f"images are numbered up to {max(numbers)}, and {absent} of these numbers are absent: still arriving, or "
            "exported in part"
        )
    return tuple(remarks)
