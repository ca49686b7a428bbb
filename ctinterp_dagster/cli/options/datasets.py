"""Public data sets that `ctinterp scans add --layout` takes: one entry each of datasets.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataSet:
    """How a data set lies on disk, and under which terms.

    Attributes:
        name: on the command line; the folder of its scans in data/raw.
        lies: how its files lie, for people.
        scans: pattern of the place of a scan below the data set's folder, a file or a folder of DICOM; its groups
            `patient` and, where the data set has one, `split`.
        licence: its name, or where to confirm it, or both.
        citation: of its paper.
        stated: where the layout and the licence stand.
        dicom: a scan is a folder of DICOM; else a file.
        in_unit: values are [0, 1] of [-1024, 2048] HU, and are brought back to HU.
        rewritten: a scan is several files, or not in HU: it becomes one `.nii.gz` file of the same values.
        partner: pattern of the place of its thick partner, with the groups of `scans`; empty where there is none.
    """

    name: str
    lies: str
    scans: str
    licence: str
    citation: str
    stated: str
    dicom: bool = False
    in_unit: bool = False
    rewritten: bool = False
    partner: str = ""


DATA_SETS = tuple(
    DataSet(**row) for row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["dataset"]
)
DATA_SET_NAMES = tuple(row.name for row in DATA_SETS)


def dataset(name: str) -> DataSet:
    """The row of a name."""
    return next(row for row in DATA_SETS if row.name == name)
