"""The table of cases that ingest writes and every later stage reads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import read_csv, read_json, write_csv
from ctinterp_dagster.scan.split import Split


@dataclass(frozen=True)
class Case:
    """One thin volume.

    Attributes:
        case: its name.
        patient: whose it is.
        split: train, val or test, the patient's.
        phantom: whether it is a phantom.
    """

    case: str
    patient: str
    split: Split
    phantom: bool = False

    def thin(self, layout: Layout) -> Path:
        """Where ingest put the volume."""
        return layout.ingest / "volumes" / f"{self.case}.nii"

    def thick(self, layout: Layout, task: str) -> Path:
        """Where thicken put the synthetic thick scan."""
        return layout.thicken / task / f"{self.case}.nii"

    def latents(self, layout: Layout) -> Path:
        """Where encode put the latents."""
        return layout.encode / f"{self.case}.safetensors"


@dataclass(frozen=True)
class ScanRecord:
    """What ingest keeps of a scan, beside its volume.

    Attributes:
        voxels: a hash of the values in whole HU, the same for a scan in any format.
        patient: a pseudonym.
        thickness_mm: SliceThickness, where it is known.
        kernel: the reconstruction kernel's name, where it is known.
        helical: whether the acquisition was; None where nothing says it.
        burned_in_annotation: whether the pixels may show who the patient is.
        warnings: sentences, without names of files.
    """

    voxels: str
    patient: str
    thickness_mm: float | None
    kernel: str
    helical: bool | None
    burned_in_annotation: bool
    warnings: list[str]


def read_scan_record(volume: Path) -> ScanRecord:
    """What ingest kept of the scan of a volume file.

    Args:
        volume: a file that ingest wrote.

    Returns:
        Hash of the values, and what the tags told.

    Raises:
        MissingInputError: ingest has not written it, or it is damaged.
    """
    return ScanRecord(**read_json(volume.with_suffix(".json")))


def write_cases(path: Path, cases: list[Case]) -> None:
    """Write the table in the order of the ids."""
    rows = [asdict(case) for case in sorted(cases, key=lambda c: c.case)]
    write_csv(path, rows, [field.name for field in fields(Case)])


def read_cases(layout: Layout, *splits: Split) -> list[Case]:
    """The ingested cases of the named splits (all without a name), in the order of their ids.

    Args:
        layout: where things are.
        *splits: train, val or test.

    Returns:
        One case or more.

    Raises:
        MissingInputError: ingest has not run, or no case is in these splits.
    """
    rows = read_csv(layout.ingest / "cases.csv")
    cases = [Case(row["case"], row["patient"], cast("Split", row["split"]), row["phantom"] == "True") for row in rows]
    chosen = [case for case in cases if not splits or case.split in splits]
    if not chosen:
        raise MissingInputError(
            f"none of the {len(cases)} ingested cases is in {' or '.join(splits)}: add scans with "
            "`ctinterp scans add`, or change ingest.split in params.yaml"
        )
    return chosen


def write_pairs(path: Path, pairs: Mapping[str, str]) -> None:
    """Write the table of real thick scans, if there are any, each with the case that is its truth."""
    if pairs:
        write_csv(path, [{"case": thick, "thin": thin} for thick, thin in pairs.items()], ["case", "thin"])


def read_pairs(layout: Layout) -> dict[str, str]:
    """The real thick scans, each with the case that is its truth.

    Args:
        layout: where things are.

    Returns:
        Ids of the thin cases by those of the thick scans; empty where ingest found none.
    """
    path = layout.ingest / "pairs.csv"
    return {row["case"]: row["thin"] for row in read_csv(path)} if path.exists() else {}


def write_sources(path: Path, sources: Mapping[str, tuple[str, str]]) -> None:
    """Write the table of cases whose licence or citation was told; without any there is no table."""
    if not sources:
        path.unlink(missing_ok=True)
        return
    rows = [{"case": case, "licence": licence, "citation": citation} for case, (licence, citation) in sources.items()]
    write_csv(path, rows, ["case", "licence", "citation"])


def read_sources(layout: Layout, split: Split) -> dict[str, int]:
    """How many cases of a split have each licence and citation, such as `CC BY 4.0: Name et al.`.

    Args:
        layout: where things are.
        split: the split.

    Returns:
        Counts by licence and citation.

    Raises:
        MissingInputError: ingest has not run.
    """
    path = layout.ingest / "sources.csv"
    own = {case.case for case in read_cases(layout) if case.split == split}
    rows = read_csv(path) if path.exists() else []
    return dict(Counter(f"{row['licence']}: {row['citation']}" for row in rows if row["case"] in own))
