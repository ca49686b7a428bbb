"""One DICOM series that holds several scans: passes, phases, stretches of another slice distance; and its copies."""

import filecmp
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ctinterp_dagster.errors import DuplicateSlicesError, MixedThicknessError, SliceSpacingError
from ctinterp_dagster.scan.io.dicom import DicomFile
from ctinterp_dagster.scan.io.grid import (
    LATE,
    MARKS,
    ROUNDING_MM,
    Array,
    Plane,
    along_normal,
    is_regular,
    named,
    regular_grid,
    rounding_mm,
    usual_step,
    without_scout,
)

THICKNESS_TOLERANCE = 0.02  # relative: what scanners round to
LEAST_SLICES = 3  # of a pass, and of stretches on average: two always lie on a regular grid


@dataclass(frozen=True)
class Part:
    """A scan that is in a series, maybe among others.

    Attributes:
        files: its files with its own planes.
        told: what a user should know of it.
        uneven: of a stretch: what is uneven about all of them; None of a scan by itself.
        joined: whether the series consists of the stretches of one scan.
    """

    files: list[DicomFile]
    told: tuple[str, ...]
    uneven: SliceSpacingError | None = None
    joined: bool = False


def without_copies(files: Sequence[DicomFile]) -> tuple[list[DicomFile], tuple[str, ...]]:
    """Drop files that are the same, byte for byte, as another one of their series, and say so.

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


def _passes(along_mm: Array, labels: Sequence[str]) -> list[list[int]]:
    """Indices of slices in passes, which follow each other in the order of the labels.

    A pass goes on as long as the slices of the next label lie beyond its own, so that slabs of one scan, each of a
    number and time of its own, stay together; where they come among its own a new pass begins.
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


def _separated(planes: Sequence[Plane], along_mm: Array, rounding: float) -> tuple[list[list[int]], str]:
    """Sorted planes in passes or phases, and the name of what tells them apart; one pass where nothing does."""
    collide = bool(np.diff(along_mm).min() <= ROUNDING_MM)
    for k, name in enumerate(MARKS):
        labels = [p.marks[k] for p in planes] if planes[0].marks else []
        if len(set(labels)) < 2 or (k >= LATE and not collide):
            continue
        passes = [sorted(members) for members in _passes(along_mm, labels)]
        whole = all(len(p) >= LEAST_SLICES and is_regular(along_mm[p], rounding) for p in passes)
        told = collide and len(passes) == len(set(labels))  # each a label of its own: judged each on its own
        apart = all(len(p) == 1 or np.diff(along_mm[p]).min() > ROUNDING_MM for p in passes)
        if len(passes) > 1 and (whole or (told and apart)):
            return passes, name
    return [list(range(len(planes)))], ""


def _stretches(planes: Sequence[Plane], along_mm: Array, rounding: float) -> list[slice]:
    """Stretches of sorted planes, each of one SliceThickness and on a regular grid; one where these explain nothing."""
    whole, starts = [slice(0, len(planes))], [0]
    even = is_regular(along_mm, rounding) and all(_as_thick(one, planes[0]) for one in planes)
    if even or np.diff(along_mm).min() <= ROUNDING_MM:
        return whole
    for k in range(1, len(planes)):
        same = _as_thick(planes[k], planes[starts[-1]])
        pair = k - starts[-1] < 2
        if not (same and (pair or is_regular(along_mm[starts[-1] : k + 1], rounding))):
            starts.append(k)
    if starts[-1] == len(planes) - 1 and _as_thick(planes[-1], planes[-2]):
        starts[-1] -= 1  # the last slice and the one before it
    lengths = np.diff([*starts, len(planes)])
    explained = lengths.min() >= 2 and lengths.mean() >= LEAST_SLICES
    return [slice(a, b) for a, b in pairwise([*starts, len(planes)])] if explained else whole


def _as_thick(one: Plane, other: Plane) -> bool:
    """Whether SliceThickness is the same, or absent from both."""
    own_mm, other_mm = one.thickness_mm, other.thickness_mm
    if own_mm is None or other_mm is None:
        return own_mm == other_mm
    return math.isclose(own_mm, other_mm, rel_tol=THICKNESS_TOLERANCE)


def _uneven(planes: Sequence[Plane], stretches: Sequence[slice]) -> SliceSpacingError:
    """What is uneven about sorted planes that are several stretches."""
    try:
        regular_grid(planes)
    except SliceSpacingError as error:
        return error
    before, after = (planes[k] for k in (stretches[1].start - 1, stretches[1].start))
    return MixedThicknessError(
        f"SliceThickness changes from {before.thickness_mm} to {after.thickness_mm} mm at {after.file.name!r}: "
        "expected one thickness; give the slices of one (`ctinterp interpolate` takes several)"
    )


def scans_of(files: Sequence[DicomFile]) -> list[Part]:
    """The scans that the slices of one series are.

    Slices of two acquisitions, times or phases are two scans where they lie at the same place, or among each other; a
    scan of slabs is one. Where the slice distance or SliceThickness changes, or slices are missing, each stretch of
    even slices is a scan.
    """
    images = [f for f in files if not f.is_companion]
    planes = without_scout([p for f in images for p in f.planes])
    alike = {(p.size, tuple(round(v, 2) for v in (*p.orientation, *p.pixel_mm))) for p in planes}
    if len(planes) < LEAST_SLICES or len(alike) > 1 or not all(f.planes for f in images):
        return [Part(list(files), ())]
    ordered, along, _, direction = along_normal(planes)
    rounding = rounding_mm(direction[:, 2])
    passes, mark = _separated(ordered, along, rounding)
    parts: list[Part] = []
    for number, members in enumerate(passes, start=1):
        own = [ordered[k] for k in members]
        told = (f"pass {number} of {len(passes)} in one series, told apart by {mark}",) if mark else ()
        stretches = _stretches(own, along[members], rounding)
        if len(stretches) == 1:
            parts.append(Part(_files_of(files, own) if mark else list(files), told))
            continue
        uneven = _uneven(own, stretches)
        changed = "SliceThickness" if isinstance(uneven, MixedThicknessError) else "the slice distance"
        for k, stretch in enumerate(stretches, start=1):
            part = own[stretch]
            changes = (
                f"stretch {k} of {len(stretches)}, from {part[0].file.name!r} to {part[-1].file.name!r}, every "
                f"{usual_step(along[members][stretch]):.3g} mm: {changed} changes along the series"
            )
            parts.append(Part(_files_of(files, part), (*told, changes), uneven, joined=not mark))
    return parts


def _files_of(files: Sequence[DicomFile], planes: Sequence[Plane]) -> list[DicomFile]:
    of_file: dict[Path, list[Plane]] = defaultdict(list)
    for plane in planes:
        of_file[plane.file].append(plane)
    return [replace(f, planes=tuple(of_file[f.file])) for f in files if f.file in of_file]


def incomplete(files: Sequence[DicomFile]) -> tuple[str, ...]:
    """What the headers of a series say of images that are not there; nothing where they do not tell."""
    said = []
    slices = sum(max(len(f.planes), 1) for f in files)
    expected = max(f.expected for f in files)
    if expected > slices:
        said.append(f"{slices} images of {expected} that its headers count: still arriving, or exported in part")
    numbers = {f.counted for f in files}
    absent = max(numbers) - len(numbers)
    one_each = len(numbers) == len(files) and all(f.frames == 1 for f in files)
    if one_each and min(numbers) > 0 and absent > 0:
        said.append(
            f"images are numbered up to {max(numbers)}, and {absent} of these numbers are absent: still arriving, or "
            "exported in part"
        )
    return tuple(said)
