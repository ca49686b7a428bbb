"""From the headers of a DICOM series to a scan in HU, or a reason why there is none."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ctinterp_dagster.errors import (
    DerivedError,
    DeviationError,
    GeometryError,
    MixedSeriesError,
    NotCtError,
    SecondaryCaptureError,
    TruncatedScanError,
    UnreadableScanError,
    WrongUnitsError,
)
from ctinterp_dagster.scan.io.dicom import DicomFile, is_beside, read_header
from ctinterp_dagster.scan.io.found_scan import Scan
from ctinterp_dagster.scan.io.grid import Grid, regular_grid, without_scout
from ctinterp_dagster.scan.io.odd_planes import cut_off, refuse_jumps, repeated
from ctinterp_dagster.scan.io.pixels import read_stored
from ctinterp_dagster.scan.padding import OUTSIDE_HU, tagged_padding
from ctinterp_dagster.scan.tilt import straightened
from ctinterp_dagster.scan.volume import FloatArray, refuse_reformat

# Words in ImageType (0008,0008) of CT images that are no slices as reconstructed: maps, projections, reformats, what
# calculates with pixels (PS3.3, C.8.16.1.4), and what multi-energy CT says of materials (PS3.17, JJJJ). Its VMI and
# MAT_REMOVED are like slices.
COMPUTED = re.compile(
    r"(?<![A-Z])(PERFUSION|R?CBF|R?CBV|MTT|TTP|TMAX|MIP|MAX_IP|MINIP|MIN_IP|MAXIMUM|MINIMUM|C?MPR|REFORMATTED|VRT|"
    r"ADDITION|SUBTRACTION|MULTIPLICATION|DIVISION|QUANTITY|"
    r"MAT_SPECIFIC|MAT_FRACTIONAL|MAT_VALUE_BASED|EFF_ATOMIC_NUM|ELECTRON_DENSITY)(?![A-Z])"
)
DEVIATION = "STD_DEVIATION"
# RescaleType (0028,1054): US (unspecified) and misspelt "Houndsfield Unit" are what some scanners write for HU.
HU_TYPES = {"HU", "US", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS", "HOUNDSFIELD UNIT", "HOUNSFIELD"}


def check_series(files: Sequence[DicomFile], *, deviation: bool = False) -> Grid:
    """The regular grid of one series that its headers alone show to be an axial CT in HU.

    Args:
        files: headers of one series, in any order.
        deviation: take standard deviations too.

    Returns:
        The grid, with its spacing in mm and what it warns of.

    Raises:
        SecondaryCaptureError: nothing but pictures of a screen.
        NotCtError: no slice among the images, or another modality.
        DerivedError: a projection, a map or a reformat, by ImageType or by planes that are not axial.
        DeviationError: standard deviations.
        TruncatedScanError: a file is too short for its pixels.
        MixedSeriesError: several patients, sizes or orientations (MixedOrientationError).
        WrongUnitsError: no rescale to HU, or colours.
        GeometryError: a CT image, or a frame, without a place in space.
        SliceSpacingError: a slice is missing, doubled, or off every regular grid.
        GantryTiltError: positions run off the normal by more than 35 degrees.
        TooFewSlicesError: fewer than two planes.
    """
    if is_beside(files):
        kinds = {"screen captures" if f.is_captured else "/".join(f.image_type) or f.modality for f in files}
        only, error = ", ".join(sorted(kinds)), SecondaryCaptureError if kinds == {"screen captures"} else NotCtError
        raise error(f"no CT slices in space among {len(files)} file(s), only {only}: give the axial series")
    slices = [f for f in files if not f.is_companion]
    for file in slices:
        _check_slice(file)
        if DEVIATION in file.image_type and not deviation:
            raise DeviationError(
                f"ImageType of {file.file.name} is {'/'.join(file.image_type)}, standard deviations: expected a scan; "
                "give the series that it is of"
            )
    if len({f.owner for f in slices}) > 1:
        by = (
            "PatientID" if any(f.patient for f in slices) else "PatientName and PatientBirthDate, without any PatientID"
        )
        raise MixedSeriesError(f"the series names more than one patient ({by}): expected one; separate the images")
    planes = without_scout([plane for f in slices for plane in f.planes])
    refuse_reformat(np.cross(planes[0].orientation[:3], planes[0].orientation[3:]))
    return regular_grid(planes)


def _check_slice(file: DicomFile) -> None:
    name = file.file.name
    if file.modality != "CT":
        raise NotCtError(f"Modality of {name} is {file.modality!r}, expected 'CT': give the CT series")
    if file.frames > 1 and not file.planes:
        raise GeometryError(
            f"{name} holds {file.frames} frames and not one place for each: expected one image a file, or an enhanced "
            "CT with the position of every frame; export it again as single images"
        )
    if not file.planes:
        raise GeometryError(f"{name} has no position, orientation or size: expected all; export it again")
    if COMPUTED.search("\\".join(file.image_type)):
        raise DerivedError(
            f"ImageType of {name} is {'/'.join(file.image_type)}, a map, a projection or a reformat: expected slices "
            "as reconstructed; give the series as it was acquired"
        )
    _check_units(file)
    if file.missing_bytes:
        raise TruncatedScanError(
            f"{name} is truncated: {file.missing_bytes} bytes of its pixels are missing; export it again"
        )


def _check_units(file: DicomFile) -> None:
    rescales = {plane.rescale for plane in file.planes}
    if None in rescales or not file.rescale_types <= HU_TYPES:
        next_step = "export it with them" if None in rescales else "give the study's series in HU, as it was acquired"
        raise WrongUnitsError(
            f"{file.file.name} has rescale {sorted(rescales, key=str)} of type "
            f"{', '.join(sorted(file.rescale_types))}: expected RescaleSlope and RescaleIntercept to HU; {next_step}"
        )
    if not file.photometric.startswith("MONOCHROME"):
        raise WrongUnitsError(
            f"PhotometricInterpretation of {file.file.name} is {file.photometric!r}, colours: expected MONOCHROME2 or "
            "MONOCHROME1 with a rescale to HU; give the series as it was reconstructed"
        )


def _hu_of(grid: Grid) -> tuple[FloatArray, tuple[str, ...]]:
    """Values of the planes of a series, and what is odd about them.

    Args:
        grid: where they lie.

    Returns:
        (z, y, x) HU, and sentences.

    Raises:
        UnreadableScanError: the pixels of a file cannot be decoded, or are not of the size that its header says.
        WrongUnitsError: values jump where their rescale changes.
    """
    places: dict[Path, list[int]] = defaultdict(list)
    for k, plane in enumerate(grid.planes):
        places[plane.file].append(k)
    hu = np.empty((len(grid.planes), *grid.planes[0].size), dtype=np.float32)
    cut: dict[str, int] = {}
    padded_hu: set[float] = set()
    for file, slots in places.items():
        stored = read_stored(file)
        values = stored.values
        if values.shape[1:] != hu.shape[1:] or len(values) <= max(grid.planes[k].frame for k in slots):
            raise UnreadableScanError(
                f"{file.name} decodes to {values.shape} (frames, rows, columns), its header says {len(slots)} of "
                f"{hu.shape[1:]}: export it again"
            )
        if stored.cut:
            cut[file.name] = stored.cut
        for k in slots:
            slope, intercept = grid.planes[k].rescale or (1.0, 0.0)
            hu[k] = values[grid.planes[k].frame] * slope + intercept
            if stored.padding is not None:
                padded_hu |= _mark_padding(hu[k], stored.padding * slope + intercept)
    refuse_jumps(hu, grid.planes)
    return hu, (*_told(cut, padded_hu), *cut_off(hu, grid.planes), *repeated(hu, grid.planes))


def _mark_padding(plane: FloatArray, value_hu: float) -> set[float]:
    """Set to -2000 HU what tags say is padding of a plane (y, x), HU, where its value is that of tissue: that value."""
    mask = tagged_padding(plane, float(np.float32(value_hu)))
    if mask is None:
        return set()
    plane[mask] = OUTSIDE_HU
    return {value_hu}


def _told(cut: Mapping[str, int], padded_hu: Collection[float]) -> Iterator[str]:
    """What users should know of values.

    Args:
        cut: pixels with bits above those that are stored, by file.
        padded_hu: values of padding that were overwritten.

    Yields:
        A sentence for each that there is.
    """
    if padded_hu:
        values = ", ".join(f"{hu:g}" for hu in sorted(padded_hu))
        yield f"padded with {values} HU (PixelPaddingValue), which may be tissue: {OUTSIDE_HU:g} HU stand there now"
    if cut:
        yield (
            f"{sum(cut.values())} pixels hold bits above BitsStored, the first in {next(iter(cut))!r}: these are left "
            "out, as the standard has it; if bone or metal looks wrong the tag is, export the series again"
        )


def read_series(files: Sequence[Path], frames: Sequence[Sequence[int]] = (), *, deviation: bool = False) -> Scan:
    """One DICOM series in HU, each slice by its own rescale, those of a tilted gantry `straightened`.

    Args:
        files: its files.
        frames: the frames of each file that belong to it; all of them where empty.
        deviation: take standard deviations too.

    Returns:
        Volume in HU, and what the tags tell.

    Raises:
        ScanError: the series is no axial CT in HU on a regular grid; the subclass is the reason.
        UnreadableScanError: the pixels cannot be decoded.
    """
    headers = [read_header(f) for f in files]
    if frames:
        headers = [
            replace(h, planes=tuple(p for p in h.planes if p.frame in own))
            for h, own in zip(headers, frames, strict=True)
        ]
    grid = check_series(headers, deviation=deviation)
    hu, remarks = _hu_of(grid)
    files_used = {plane.file for plane in grid.planes}
    used = [h for h in headers if h.file in files_used]
    volume, shifted = straightened(grid.volume(hu), grid.shift)
    return Scan(
        volume=volume,
        patient=used[0].patient,
        thickness_mm=grid.thickness_mm,
        each_thickness_mm=grid.each_thickness_mm,
        kernel=used[0].kernel,
        modality=used[0].modality,
        kind="dicom",
        burned_in_annotation=any(h.burned_in for h in used),
        derived=any("DERIVED" in h.image_type for h in used),
        helical=used[0].helical,
        tilted=any(grid.shift),
        warnings=(*remarks, *shifted),
    )
