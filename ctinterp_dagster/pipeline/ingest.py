"""Is this a regular CT volume in HU, whose patient is it, which split?"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast, get_args

from ctinterp_dagster.errors import (
    DerivedError,
    DuplicateScanError,
    GantryTiltError,
    MissingInputError,
    ParamsError,
    ScanError,
    TooThickError,
)
from ctinterp_dagster.import_closure import code_version
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Ingest, Params, Phantom
from ctinterp_dagster.pipeline.common.cases import (
    Case,
    ScanRecord,
    read_scan_record,
    write_cases,
    write_pairs,
    write_sources,
)
from ctinterp_dagster.records import CaseFolder, CaseJob, read_csv, write_csv, write_json
from ctinterp_dagster.scan.checks import check_volume
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import Found, Scan, find_scans, read_scan, write_volume
from ctinterp_dagster.scan.padding import without_padding
from ctinterp_dagster.scan.pairs import LEAST_SHARED, partners
from ctinterp_dagster.scan.phantom import phantom
from ctinterp_dagster.scan.split import Split, assert_no_leak, assert_splits, split_patients
from ctinterp_dagster.scan.volume import voxel_hash
from ctinterp_dagster.scan.window import STORED
from ctinterp_dagster.tracking import assert_tracked

logger = logging.getLogger(__name__)

SCANS_TABLE = "scans.csv"  # in data/raw: file, patient, split, and where they are told licence and citation
PHANTOM_NOISE_HU = 12.0  # standard deviation


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write volumes and thick partners, and `cases.csv`, `pairs.csv`, `quarantine.csv` and, of licences, `sources.csv`.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        How many `cases`, `pairs`, `quarantined` scans and `patients` there are.

    Raises:
        MissingInputError: there is neither a scan nor a phantom to make.
        ParamsError: scans.csv names a split that does not exist.
        ScanError: no scan at all was fit, or not every scan was and `ingest.strict` is true.
        TrainingError: a patient is in two splits, or none is in train or in test.
    """
    section = params.ingest
    recipe = {
        "code": code_version(Path(__file__)),
        "min_slices": section.min_slices,
        "max_spacing_mm": section.max_spacing_mm,
    }
    folder = CaseFolder(layout.ingest, recipe)
    assert_tracked(layout)
    found = [scan for scan in find_scans(layout.raw, keep_headers=True) if not scan.name.startswith(SCANS_TABLE)]
    if found and section.phantom.patients:
        logger.warning(
            "params.yaml is made for phantoms: `ctinterp preset cpu` or `ctinterp preset gpu` makes it for scans"
        )
    if found:
        done = ingest_scans(found, section, layout, folder)
    else:
        done = Ingested(ingest_phantoms(section, params.base.seed, layout), {}, [], {})
    cases, refused = done.cases, done.refused
    if refused and not cases:
        raise refused[0][1]
    if not cases:
        raise MissingInputError(
            "data/raw holds no scans and ingest.phantom.patients is 0: add scans with `ctinterp scans add`"
        )
    assert_no_leak(asdict(case) for case in cases)
    folder.keep_only([*(case.case for case in cases), *done.pairs])
    write_cases(layout.ingest / "cases.csv", cases)
    write_pairs(layout.ingest / "pairs.csv", done.pairs)
    write_sources(layout.ingest / "sources.csv", done.sources)
    rows = [{"scan": name, "reason": error.reason, "message": str(error)} for name, error in refused]
    write_csv(layout.ingest / "quarantine.csv", rows, ["scan", "reason", "message"])
    if section.strict and refused:
        raise ScanError(
            f"{len(refused)} of {len(found)} scans are in quarantine, ingest.strict expects none: see "
            f"{layout.ingest / 'quarantine.csv'}; `ctinterp scans list` names their files"
        )
    assert_splits({case.patient: case.split for case in cases})
    return {
        "cases": len(cases),
        "pairs": len(done.pairs),
        "quarantined": len(refused),
        "patients": len({case.patient for case in cases}),
    }


def ingest_phantoms(section: Ingest, seed: int, layout: Layout) -> list[Case]:
    """Synthesise the built-in cohort, one patient each, where no scan was ever added.

    Args:
        section: how many, of which size and noise, and how they are split.
        seed: of the first phantom; the next has the next.
        layout: where things are.

    Returns:
        The cases, in the order of their seeds.
    """
    logger.info("no scan was ever added: %d phantoms stand in", section.phantom.patients)
    recipe = {"phantom": section.phantom.model_dump(), "code": code_version(Path(__file__))}
    folder = CaseFolder(layout.ingest, recipe)
    names = [f"phantom-{number + 1:02d}" for number in range(section.phantom.patients)]
    splits = split_patients(dict.fromkeys(names), **section.split.model_dump())
    folder.make_all(
        CaseJob(
            name,
            [],
            [f"volumes/{name}.nii"],
            partial(write_phantom, seed + number, section.phantom),
            f"case={name} split={splits[name]}",
        )
        for number, name in enumerate(names)
    )
    return [Case(name, name, splits[name], phantom=True) for name in names]


def write_phantom(seed: int, section: Phantom, paths: list[Path]) -> None:
    """Make one of the cohort, as `CaseJob.action`.

    Args:
        seed: another one, another patient.
        section: size in voxels and spacing in mm.
        paths: of the one file.
    """
    made = phantom(seed, shape_zyx=section.shape_zyx, spacing_mm=section.spacing_mm, noise_hu=PHANTOM_NOISE_HU)
    write_volume(made, paths[0])


class FitScan(NamedTuple):
    """A scan that is fit to be a case: its case, its patient, and the split of scans.csv, empty where it names none."""

    case: str
    patient: str
    split: str


@dataclass(frozen=True)
class Ingested:
    """What became of the scans.

    Attributes:
        cases: the thin volumes.
        pairs: thick partners, each with its case.
        refused: by the id of the scan.
        sources: licence and citation of cases, where scans.csv tells one.
    """

    cases: list[Case]
    pairs: dict[str, str]
    refused: list[tuple[str, ScanError]]
    sources: dict[str, tuple[str, str]]


def ingest_scans(found: list[Found], section: Ingest, layout: Layout, folder: CaseFolder) -> Ingested:
    """Read, check and write every scan.

    A scan that scans.csv lists keeps its name; another one, whose name may be a person's, is called by a pseudonym. Of
    scans with the same voxels the first is taken: listed ones first, then DICOM, then by name.

    Args:
        found: the scans of data/raw.
        section: how they are judged.
        layout: where things are.
        folder: keeps what was made.

    Returns:
        Cases and thick partners, and the refused scans with their reasons.
    """
    table = read_csv(layout.raw / SCANS_TABLE) if (layout.raw / SCANS_TABLE).exists() else []
    given = {row["file"]: row for row in table}
    if lost := sorted(given.keys() - {scan.name for scan in found}):
        logger.warning("scans.csv names %d scans that data/raw does not hold, %s first", len(lost), lost[0])
    key = load_key()
    truths = partners(found, max_thin_mm=section.max_spacing_mm)
    done = Ingested([], {}, [], {})
    names: dict[str, str] = {}
    given_names: set[str] = set()
    taken: dict[str, Found] = {}
    fit: dict[str, FitScan] = {}

    def turn(scan: Found) -> tuple[bool, ...]:
        return (scan.name in truths, scan.name not in given, scan.kind != "dicom")  # the thick ones after the truths

    for scan in sorted(found, key=turn):
        listed = scan.name in given
        name = unique_name(scan.name, given_names) if listed else pseudonym(scan.name, key, "s")
        names[scan.name] = name
        given_names.add(name)
        truth = names.get(truths.get(scan.name, ""))
        paired = truth in fit
        try:
            record = take_in(scan, name, section, folder, key, paired=paired)
            refuse_duplicate(scan, taken.setdefault(record.voxels, scan), names)
        except ScanError as error:
            refusal = error if listed else scan.without_names(error)
            logger.warning("scan=%s quarantined reason=%s: %s", name, refusal.reason, refusal)
            done.refused.append((name, refusal))
            continue
        if record.burned_in_annotation:
            logger.warning("scan=%s burned-in annotation: the pixels may show who the patient is", name)
        for warning in record.warnings:
            logger.warning("scan=%s %s", name, warning)
        if truth and paired:
            done.pairs[name] = truth
            logger.info("scan=%s is the thick partner of case=%s", name, truth)
            continue
        row = given.get(scan.name, {"patient": record.patient, "split": ""})
        fit[name] = FitScan(name, row["patient"], row["split"])
        if any(source := (row.get("licence", ""), row.get("citation", ""))):
            done.sources[name] = source
    return replace(done, cases=split_cases(list(fit.values()), section))


def refuse_duplicate(scan: Found, first: Found, names: dict[str, str]) -> None:
    """Refuse a scan of the same voxels as one that is taken; at the same place, it goes by that one's name.

    Args:
        scan: the one that may be a copy.
        first: the first of these voxels, `scan` itself where there is no other.
        names: of all scans, by theirs in data/raw.

    Raises:
        DuplicateScanError: it is not the first.
    """
    if scan is first:
        return
    if scan.place and scan.place == first.place:
        names[scan.name] = names[first.name]  # its thick partner is the other's
    raise DuplicateScanError(
        f"the same voxels as {names[first.name]}, which is taken: expected each scan once, or one could be "
        "trained on and tested on; remove either"
    )


def take_in(scan: Found, name: str, section: Ingest, folder: CaseFolder, key: bytes, *, paired: bool) -> ScanRecord:
    """Write one scan and what is known of it, if that is not there already.

    Padding outside of the field is filled, then values are clipped to the 12-bit range of CT: above it is metal.

    Args:
        scan: to be read.
        name: of its case.
        section: how it is judged.
        folder: keeps what was made.
        key: of the pseudonyms.
        paired: whether it is the thick partner of a case.

    Returns:
        What is known of it.

    Raises:
        ScanError: why it is refused.
    """
    if scan.refusal:
        raise scan.refusal
    if scan.uneven and not paired:
        raise type(scan.uneven)(scan.nameless(str(scan.uneven)))
    place = "thick" if paired else "volumes"

    def make(paths: list[Path]) -> None:
        read = read_thick(scan) if paired else read_thin(scan, section)
        volume, _ = without_padding(read.volume)
        volume = volume.with_hu(STORED.clip(volume.hu))
        write_volume(volume, paths[0])
        known = ScanRecord(
            voxels=voxel_hash(volume),
            patient=pseudonym(read.patient, key) if read.patient else name,
            thickness_mm=read.thickness_mm,
            kernel=read.kernel,
            helical=read.helical,
            burned_in_annotation=read.burned_in_annotation,
            warnings=[scan.nameless(warning) for warning in read.warnings],
        )
        write_json(paths[1], known)

    inputs = [scan.archive] if scan.archive else list(scan.files)
    folder.make(name, inputs, [f"{place}/{name}.nii", f"{place}/{name}.json"], make)
    return read_scan_record(folder.folder / place / f"{name}.nii")


def read_thick(scan: Found) -> Scan:
    """Read the thick partner of a thin scan.

    Args:
        scan: the thick one, not read yet.

    Returns:
        The scan as it was read, HU, LEAST_SHARED slices or more.

    Raises:
        ScanError: it is not fit; the subclass is the reason.
    """
    read = read_scan(scan)
    check_volume(read.volume, min_slices=LEAST_SHARED)
    return read


def read_thin(scan: Found, section: Ingest) -> Scan:
    """Read a scan and refuse what is not fit for thin truth.

    Args:
        scan: found, not yet read.
        section: with the limits of thin truth.

    Returns:
        The scan as it was read, HU, within those limits.

    Raises:
        DerivedError: it was computed from other images.
        GantryTiltError: its slices were shifted in their planes.
        ScanError: the reason, by `check_thin` or `check_volume`.
    """
    read = read_scan(scan)
    if read.derived:
        raise DerivedError(
            "ImageType says DERIVED, computed from other images: expected ORIGINAL as thin truth; interpolate it "
            "instead, or give the series that it was computed from"
        )
    if read.tilted:
        raise GantryTiltError(
            "the gantry was tilted, so that slices were shifted in their planes: expected slices as measured for thin "
            "truth; interpolate it instead"
        )
    check_thin(read.volume.spacing_mm[0], section)
    check_volume(read.volume, min_slices=section.min_slices)
    return read


def check_thin(distance_mm: float, section: Ingest) -> None:
    """Refuse slices that are too far apart for thin truth.

    Args:
        distance_mm: of the slices.
        section: with the limits of thin truth.

    Raises:
        TooThickError: they are.
    """
    if distance_mm > section.max_spacing_mm:
        raise TooThickError(
            f"slices every {distance_mm:g} mm are not thin truth: expected at most {section.max_spacing_mm:g} mm "
            "(ingest.max_spacing_mm); interpolate it instead"
        )


def split_cases(fit: Sequence[FitScan], section: Ingest) -> list[Case]:
    """Cases of scans; a split that scans.csv names for one of a patient's scans is that of all of them.

    Args:
        fit: the scans.
        section: with the shares of the splits.

    Returns:
        Cases in the order of the scans.

    Raises:
        ParamsError: scans.csv names another word.
    """
    unknown = [one.split for one in fit if one.split and one.split not in get_args(Split)]
    if unknown:
        raise ParamsError(f"{SCANS_TABLE}: split {unknown[0]!r} is unknown: expected train, val, test or nothing")
    given = dict.fromkeys(one.patient for one in fit) | {
        one.patient: cast("Split", one.split) for one in fit if one.split
    }
    splits = split_patients(given, **section.split.model_dump())
    cases = [Case(one.case, one.patient, cast("Split", one.split) or splits[one.patient]) for one in fit]
    for case in cases:
        logger.info("case=%s split=%s", case.case, case.split)
    return cases


def unique_name(name: str, taken: set[str]) -> str:
    """A case id from a scan's place: lower-case letters, digits and hyphens."""
    stem = re.sub(r"\.(nii\.gz|nii|mha|mhd|nrrd|zip)$", "", name.lower())
    slug = re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "scan"
    return next(
        candidate for n in range(1, len(taken) + 2) if (candidate := slug if n == 1 else f"{slug}-{n}") not in taken
    )
