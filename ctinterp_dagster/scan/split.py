"""Which patients train, which validate, which test."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

from ctinterp_dagster.errors import ParamsError, TrainingError

Split = Literal["train", "val", "test"]


def split_of(patient: str, *, val_fraction: float, test_fraction: float, salt: str = "ctinterp") -> Split:
    """The split of a patient: a function of the id alone, so that new scans never move old ones.

    Args:
        patient: the patient's id; all scans of a patient share it, and so the split.
        val_fraction: expected share of patients to validate on, in [0, 1].
        test_fraction: expected share of patients to test on, in [0, 1].
        salt: another salt, another draw.

    Raises:
        ParamsError: no patient id, or fractions that are negative or leave nothing to train on.
    """
    if not patient:
        raise ParamsError("patient id is empty: expected an id, or scans of one person could land in two splits")
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ParamsError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: expected at least 0, and a sum below 1"
        )
    digest = hashlib.sha256(f"{salt}\0{patient}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < test_fraction:
        return "test"
    return "val" if draw < test_fraction + val_fraction else "train"


def assert_no_leak(rows: Iterable[Mapping[str, str]]) -> None:
    """Refuse a table of cases in which one patient is in two splits.

    Args:
        rows: each with `case`, `patient` and `split`. Messages name cases, never patients.

    Raises:
        TrainingError: a patient is in two splits.
    """
    seen: dict[str, Mapping[str, str]] = {}
    for row in rows:
        first = seen.setdefault(row["patient"], row)
        if first["split"] != row["split"]:
            raise TrainingError(
                f"one patient is in two splits: case {first['case']} in {first['split']}, case {row['case']} in "
                f"{row['split']}; expected one split a patient; correct the splits in scans.csv"
            )
