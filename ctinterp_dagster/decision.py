"""What passes between evaluation, gate, registry and Dagster: what was measured of a model, and what was decided."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.records import read_json

RecordT = TypeVar("RecordT")

Verdict = Literal["pass", "fail", "note"]


class Rule(StrEnum):
    """What a challenger is asked, as `decision.json` names it, with the sentence that says so."""

    asks: str

    TASKS = "tasks", "It was measured on the test set."
    SPLITS = "splits", "No patient is in two splits."
    FINITE = "finite", "Every metric is a finite number."
    RESIDUAL = "residual", "Thickening the estimate again gives the measured scan."
    BASELINE = (
        "baseline",
        "It is better than the best classical method (noted, or asked for: promote.required).",
    )
    CALIBRATION = (
        "calibration",
        "Its 90 % interval holds about 90 % of the truth (noted, or asked for: promote.required).",
    )
    CHAMPION = (
        "champion",
        "With 95 % confidence it is not worse than the champion by more than the margin, case by case.",
    )
    ROLLED_BACK = "rolled_back", "It was not taken back by a person."

    def __new__(cls, name: str, asks: str = "") -> Self:
        """A rule and its sentence; `Rule(name)` looks one up."""
        rule = str.__new__(cls, name)
        rule._value_, rule.asks = name, asks
        return rule


@dataclass(frozen=True)
class TaskMetrics:
    """One model on one task of the test set.

    Attributes:
        psnr_db_by_case: [-1000, 1000] HU, end slices dropped; never empty.
        residual_hu: largest mean |A x - y| of any case.
        baseline: the best baseline on the same cases.
        baseline_psnr_db: its mean PSNR.
        coverage_90: share of body voxels whose truth lies in the 90 % interval, mean over the cases; None in records of
            before it was judged.
        correlation: of standard deviation and absolute error, mean over the cases; None where either is constant.
        sample_noise_ratio: noise along z of a sample over that of the truth, mean over the cases; None where a truth
            has no noise to be measured.
    """

    psnr_db_by_case: Mapping[str, float]
    residual_hu: float
    baseline: str
    baseline_psnr_db: float
    coverage_90: float | None = None
    correlation: float | None = None
    sample_noise_ratio: float | None = None

    @property
    def psnr_db(self) -> float:
        """Mean over the cases."""
        return sum(self.psnr_db_by_case.values()) / len(self.psnr_db_by_case)


@dataclass(frozen=True)
class Metrics:
    """What is known of a model when it is judged.

    Attributes:
        model_hash: of the weights.
        test_set_hash: of the frozen test set that it was measured on.
        tasks: by name, such as `box-x5`.
        shared_patients: how many patients are in more than one split.
    """

    model_hash: str
    test_set_hash: str
    tasks: Mapping[str, TaskMetrics]
    shared_patients: int


@dataclass(frozen=True)
class Finding:
    """The outcome of one rule.

    Attributes:
        rule: what is asked of the challenger.
        verdict: pass, fail, or note, which decides nothing.
        text: a sentence with the numbers.
    """

    rule: Rule
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Decision:
    """What the gate decided.

    Attributes:
        promoted: whether the challenger becomes the champion.
        findings: what each rule found, in the order of the rules.
        challenger: hash of the model that was judged.
    """

    promoted: bool
    findings: tuple[Finding, ...]
    challenger: str


def count_shared_patients(cases: Iterable[tuple[str, str]]) -> int:
    """How many patients are in more than one split (a count: identifiers stay out of reports).

    Args:
        cases: patient and split of each.

    Returns:
        0 or more.
    """
    splits: dict[str, set[str]] = {}
    for patient, split in cases:
        splits.setdefault(patient, set()).add(split)
    return sum(len(found) > 1 for found in splits.values())


def read_record(kind: type[RecordT], path: Path) -> RecordT:
    """Read what `write_json` wrote of a dataclass, or of a mapping or sequence of them.

    Args:
        kind: what the file should hold.
        path: a JSON file.

    Returns:
        What the file holds, of the kind asked for.

    Raises:
        MissingInputError: the file is not there, is damaged, or holds something else.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        raise MissingInputError(f"{path} is of another version ({mismatch(error)}): run `dvc repro`") from error


def mismatch(error: ValidationError) -> str:
    """The first place of a record that is not as expected, and what is wrong there."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
