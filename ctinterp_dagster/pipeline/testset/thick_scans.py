"""The thick scans of the test set, each with its truth: thickened ones, and real ones beside thin ones."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, ThickTask, task_name
from ctinterp_dagster.physics.measurement import Measurement, paired, synthetic
from ctinterp_dagster.physics.recognition import Tags
from ctinterp_dagster.pipeline.common.cases import read_cases, read_pairs, read_scan_record
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)

REAL = "real"
"""The profile of real thick scans, which nobody knows, and the folder of their estimates."""


@dataclass(frozen=True)
class ThickScan:
    """A thick scan of the test set.

    Attributes:
        case: its id.
        profile: that it was thickened with, or `real`.
        factor: thin slices a thick one.
        thick: its file.
        truth: the file of the thin scan.
        measurement: reads both.
    """

    case: str
    profile: str
    factor: float
    thick: Path
    truth: Path
    measurement: Callable[[], Measurement]

    @property
    def is_real(self) -> bool:
        """Whether a scanner made it; then it is shown, and no gate: a champion may never have seen it."""
        return self.profile == REAL

    @property
    def task(self) -> str:
        """What tables and the gate call what it belongs to."""
        return task_name(self.profile, self.factor)

    def estimate(self, layout: Layout, stage: str) -> Path:
        """Where generate puts the posterior mean of a stage's model."""
        return layout.generate / stage / (REAL if self.is_real else self.task) / f"{self.case}.nii"

    def deviation(self, layout: Layout, stage: str) -> Path:
        """Where generate puts the posterior standard deviation of a stage's model."""
        return self.estimate(layout, stage).with_suffix(".std.nii")

    def sample(self, layout: Layout, stage: str) -> Path:
        """Where generate puts the first posterior sample of a stage's model."""
        return self.estimate(layout, stage).with_suffix(".sample.nii")


def thick_scans(params: Params, layout: Layout) -> Iterator[ThickScan]:
    """Every thick scan of the test set: the thickened ones of each task, then the real ones."""
    yield from thickened_scans(params, layout)
    yield from real_scans(layout)


def thickened_scans(params: Params, layout: Layout) -> Iterator[ThickScan]:
    """The test cases, thickened for each task.

    Args:
        params: of all stages.
        layout: where things are.

    Raises:
        MissingInputError: ingest has not run, or no case is in test.
    """
    for case in read_cases(layout, "test"):
        for task in params.thicken.tasks:
            files = case.thick(layout, task.name), case.thin(layout)
            yield ThickScan(case.case, task.profile, task.factor, *files, partial(_thickened, *files, task))


def real_scans(layout: Layout) -> Iterator[ThickScan]:
    """The real thick scans whose truth is a test case; one that cannot be laid over it is told and left out.

    Args:
        layout: where things are.

    Raises:
        MissingInputError: ingest has not run, or no case is in test.
    """
    truths = {case.case: case.thin(layout) for case in read_cases(layout, "test")}
    for name, thin in read_pairs(layout).items():
        if thin in truths:
            files = layout.ingest / "thick" / f"{name}.nii", truths[thin]
            measurement = partial(_paired, *files)
            try:
                first = measurement()
            except (GeometryError, ParamsError) as error:
                logger.warning("pair=%s left out: %s", name, error)
                continue
            for warning in first.warnings:
                logger.warning("pair=%s %s", name, warning)
            logger.info("pair=%s profile=%s", name, first.slice_profile)
            yield ThickScan(name, REAL, first.factor, *files, measurement)


def _thickened(thick: Path, truth: Path, task: ThickTask) -> Measurement:
    return synthetic(read_scan(truth).volume, read_scan(thick).volume, task.factor, task.profile)


def _paired(thick: Path, truth: Path) -> Measurement:
    known = read_scan_record(thick)
    tags = Tags(known.thickness_mm, known.helical)
    return paired(read_scan(thick).volume, read_scan(truth).volume, tags=tags)
