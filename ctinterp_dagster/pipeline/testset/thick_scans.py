"""The thick scans of the test set, each with its truth: thickened ones, and real ones beside thin ones."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import ThickTask, task_name
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.measurement import Measurement, paired, synthetic
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
        generated: the folder of what generate made of them all.
    """

    case: str
    profile: str
    factor: float
    thick: Path
    truth: Path
    measurement: Callable[[], Measurement]
    generated: Path

    @property
    def is_real(self) -> bool:
        """Whether a scanner made it; then it is shown, and no gate: a champion may never have seen it."""
        return self.profile == REAL

    @property
    def task(self) -> str:
        """What tables and the gate call what it belongs to."""
        return task_name(self.profile, self.factor)

    def estimate(self, stage: str) -> Path:
        """Where generate puts the posterior mean of a stage's model."""
        return self.generated / stage / (REAL if self.is_real else self.task) / f"{self.case}.nii"

    def deviation(self, stage: str) -> Path:
        """Where generate puts the posterior standard deviation of a stage's model."""
        return self.estimate(stage).with_suffix(".std.nii")

    def sample(self, stage: str) -> Path:
        """Where generate puts the first posterior sample of a stage's model."""
        return self.estimate(stage).with_suffix(".sample.nii")


@dataclass(frozen=True)
class ThickScans:
    """Every thick scan of the test set: the thickened ones of each task, then the real ones.

    Attributes:
        tasks: that the test cases are thickened for.
        layout: where things are.
    """

    tasks: tuple[ThickTask, ...]
    layout: Layout

    def __iter__(self) -> Iterator[ThickScan]:
        yield from self.thickened()
        yield from self.real()

    def thickened(self) -> Iterator[ThickScan]:
        """The test cases, thickened for each task.

        Yields:
            Scans in the order of the cases.

        Raises:
            MissingInputError: ingest has not run, or no case is in test.
        """
        for case in read_cases(self.layout, "test"):
            for task in self.tasks:
                files = case.thick(self.layout, task.name), case.thin(self.layout)
                measurement = partial(_thickened, *files, task)
                yield ThickScan(case.case, task.profile, task.factor, *files, measurement, self.layout.generate)

    def real(self) -> Iterator[ThickScan]:
        """The real thick scans whose truth is a test case; one that cannot be laid over it is told and left out.

        Yields:
            Scans of the task `real`.

        Raises:
            MissingInputError: ingest has not run, or no case is in test.
        """
        truths = {case.case: case.thin(self.layout) for case in read_cases(self.layout, "test")}
        for name, thin in read_pairs(self.layout).items():
            if thin in truths:
                files = self.layout.ingest / "thick" / f"{name}.nii", truths[thin]
                measurement = partial(_paired, *files)
                try:
                    first = measurement()
                except (GeometryError, ParamsError) as error:
                    logger.warning("pair=%s left out: %s", name, error)
                    continue
                for warning in first.warnings:
                    logger.warning("pair=%s %s", name, warning)
                logger.info("pair=%s profile=%s", name, first.slice_profile)
                yield ThickScan(name, REAL, first.factor, *files, measurement, self.layout.generate)


def _thickened(thick: Path, truth: Path, task: ThickTask) -> Measurement:
    return synthetic(read_scan(truth).volume, read_scan(thick).volume, task.factor, task.profile)


def _paired(thick: Path, truth: Path) -> Measurement:
    known = read_scan_record(thick)
    acquisition = Acquisition(tags=Tags(known.thickness_mm, known.helical))
    return paired(read_scan(thick).volume, read_scan(truth).volume, acquisition)
