"""Which patients train, which validate, which test."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from ctinterp_dagster.errors import ParamsError, TrainingError

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]


def split_of(patient: str, *, val_fraction: float, test_fraction: float, salt: str = "ctinterp") -> Split:
    """The split of a patient: a function of the id alone, so that new scans never move old ones.

    Args:
        patient: the patient's id; all scans of a patient share it, and so the split.
        val_fraction: expected share of patients to validate on, in [0, 1].
        test_fraction: expected share of patients to test on, in [0, 1].
        salt: another salt, another draw.

    Returns:
        `train`, `val` or `test`.

    Raises:
        ParamsError: no patient id, or fractions that are negative or leave nothing to train on.
    """
    if not patient:
        raise ParamsError("patient id is empty: expected an id, or scans of one person could land in two splits")
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ParamsError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: expected at least 0, and a sum below 1"
        )
    draw = _draw(patient, salt)
    if draw < test_fraction:
        return "test"
    return "val" if draw < test_fraction + val_fraction else "train"


def split_patients(given: Mapping[str, Split | None], *, val_fraction: float, test_fraction: float) -> dict[str, Split]:
    """The split of every patient: the given one, else that of `split_of`, and no part empty where that can be.

    A part with a share above zero that would be empty gets the patient whose draw lies nearest to it, of a part that
    has another one; train and test come before val. So a few patients are enough to train, validate and test. A part
    that got its patient so gives it back once a later patient falls into the part by itself; nothing else moves.

    Args:
        given: by patient, the split that a person named, or None.
        val_fraction: expected share of patients to validate on, in [0, 1].
        test_fraction: expected share of patients to test on, in [0, 1].

    Returns:
        A split for each patient.

    Raises:
        ParamsError: a patient id is empty, or fractions are negative or leave nothing to train on.
    """
    bounds: dict[Split, tuple[float, float]] = {
        "test": (0.0, test_fraction),
        "train": (test_fraction + val_fraction, 1.0),
        "val": (test_fraction, test_fraction + val_fraction),
    }
    splits: dict[str, Split] = {
        patient: split or split_of(patient, val_fraction=val_fraction, test_fraction=test_fraction)
        for patient, split in given.items()
    }
    free = sorted(patient for patient, split in given.items() if not split)
    for part, (low, high) in bounds.items():
        count = Counter(splits.values())
        spare = [patient for patient in free if count[splits[patient]] > 1]
        spare = spare or [patient for patient in free if splits[patient] == "val"]
        if high > low and not count[part] and spare:

            def distance(patient: str, low: float = low, high: float = high) -> float:
                return max(low - _draw(patient), _draw(patient) - high)

            splits[min(spare, key=distance)] = part
    return splits


def _draw(patient: str, salt: str = "ctinterp") -> float:
    """A number in [0, 1) that follows from the id."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{patient}".encode()).digest()[:8], "big") / 2**64


def thin_parts(splits: Mapping[str, Split]) -> dict[Split, int]:
    """The parts that have no patient, or one, with that number."""
    count = Counter(splits.values())
    return {part: count[part] for part in get_args(Split) if count[part] < 2}


def assert_splits(splits: Mapping[str, Split]) -> None:
    """Say which part has no patient or one; refuse what cannot be trained or tested, before hours are spent on it.

    Args:
        splits: of every patient.

    Raises:
        TrainingError: train or test is empty.
    """
    few = thin_parts(splits)
    advice = "add scans of other patients (`ctinterp scans add`), or name splits in data/raw/scans.csv"
    for part, count in few.items():
        if part == "val" and not count:
            logger.warning("no patient is in val, so that no training has a val_loss: %s", advice)
        elif count:
            logger.warning("one patient is in %s: its figures say little of others; %s", part, advice)
    empty = [part for part, count in few.items() if part != "val" and not count]
    if empty:
        raise TrainingError(
            f"none of the {len(splits)} patients is in {' or '.join(empty)}: expected at least one each in train and "
            f"test; {advice}"
        )


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
