"""How far from the truth, against every baseline? Scores of the test cases, for the gate and as tables."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ctinterp_dagster.decision import TaskMetrics
from ctinterp_dagster.evaluation import evidence
from ctinterp_dagster.evaluation.metrics import Scores, Truth, noise_ratio
from ctinterp_dagster.evaluation.statistics import Calibration, calibrate
from ctinterp_dagster.interpolation import (
    Estimate,
    Interpolator,
    Measurement,
    Method,
    Settings,
    load_checkpoint,
    simulated,
)
from ctinterp_dagster.latent.ceiling import autoencoder_ceiling
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import CEILING, REGRESSION, judged, trained
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.params import Params
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.pipeline.testset.scoring import Scored, score_methods
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScan, ThickScans
from ctinterp_dagster.records import write_csv, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import FloatArray

logger = logging.getLogger(__name__)

CALIBRATION = ("coverage_90", "correlation", "sample_noise_ratio")
SUMMARISED = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")


class SampleScores(NamedTuple):
    """How honest the samples of the judged model are.

    Attributes:
        calibration: of their standard deviation.
        noise_ratio: noise of one of them over that of the truth; None where the truth has no even place to measure
            it in.
    """

    calibration: Calibration
    noise_ratio: float | None


class ScoredScan(NamedTuple):
    """A thick scan of the test set.

    Attributes:
        scan: a thick scan of the test set.
        scored: what every method scored on it.
        samples: what those of the judged model scored on it.
    """

    scan: ThickScan
    scored: list[Scored]
    samples: SampleScores


@dataclass(frozen=True)
class ScoredTask:
    """The thick scans of one task.

    Attributes:
        scans: one at least.
        baselines: the classical methods that the judged one is compared with.
    """

    scans: Sequence[ScoredScan]
    baselines: Sequence[str]

    @property
    def is_real(self) -> bool:
        """Whether a scanner made them; then they are shown, and no gate."""
        return self.scans[0].scan.is_real

    def scores(self, method: str) -> dict[str, Scores]:
        """What a method scored, by case."""
        results = ((scan.case, result) for scan, scored, _ in self.scans for result in scored)
        return {case: result.scores for case, result in results if result.method == method}

    @cached_property
    def baselines_db(self) -> dict[str, float]:
        """PSNR of each baseline in [-1000, 1000] HU, dB, mean over the cases."""
        return {name: fmean(scores.psnr_db for scores in self.scores(name).values()) for name in self.baselines}

    @cached_property
    def metrics(self) -> TaskMetrics:
        """What the gate is shown."""
        own, samples = self.scores(judged().name), [scan.samples for scan in self.scans]
        best = max(self.baselines_db, key=self.baselines_db.__getitem__)
        return TaskMetrics(
            {case: scores.psnr_db for case, scores in own.items()},
            max(scores.residual_hu for scores in own.values()),
            best,
            self.baselines_db[best],
            coverage_90=fmean(scan_samples.calibration.coverage_90 for scan_samples in samples),
            correlation=mean_of_all([scan_samples.calibration.correlation for scan_samples in samples]),
            sample_noise_ratio=mean_of_all([scan_samples.noise_ratio for scan_samples in samples]),
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What `metrics.json` says.

        Means over the cases: of the judged model's scores and calibration, of its gain over the best baseline in dB,
        and of the PSNR of each baseline in dB.
        """
        own = self.scores(judged().name).values()
        return {
            **{name: fmean(getattr(scores, name) for scores in own) for name in SUMMARISED},
            **{name: value for name in CALIBRATION if (value := getattr(self.metrics, name)) is not None},
            "gain_db": self.metrics.psnr_db - self.metrics.baseline_psnr_db,
            "baseline_psnr_db": self.baselines_db,
        }


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class Compared:
    """The methods that are scored.

    Attributes:
        model: the judged one.
        baselines: the classical methods that it is compared with.
        autoencoder: of the latent diffusion, whose best possible score is shown.
        settings: of what is restored here, and not by generate.
    """

    model: Interpolator
    baselines: Sequence[str]
    autoencoder: MaisiAutoencoder
    settings: Settings

    @property
    def classical(self) -> dict[str, Method]:
        """The baselines by name."""
        return {name: METHODS[name] for name in self.baselines}

    @property
    def restoring(self) -> dict[str, Method]:
        """The baselines and the judged model by name, for scans that generate has not seen."""
        return self.classical | {judged().name: self.model.by(self.settings)}

    def on(self, scan: ThickScan, decoded: Tensor) -> dict[str, Method]:
        """Every method that a thick scan is scored with; the models' estimates are those that generate wrote.

        The regression alone, with which the judged model is compared, is computed here.

        Args:
            scan: the thick scan.
            decoded: its truth, encoded and decoded, (z, y, x) HU.

        Returns:
            Methods by the names of their rows.
        """
        methods = self.classical
        methods[CEILING] = partial(Measurement.estimate, hu=decoded)
        methods |= {row: partial(generated, scan.estimate(stage)) for row, stage in trained().items()}
        methods[REGRESSION] = self.model.by(replace(self.settings, mirror=False))
        return methods

    def decoded(self, truth_hu: FloatArray) -> Tensor:
        """A truth (z, y, x) HU, encoded and decoded."""
        return autoencoder_ceiling(self.autoencoder, torch.from_numpy(truth_hu), self.settings.memory_gib)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/evaluate`: `judged.json`, `metrics.json`, and the tables of cases as CSV.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        The PSNR in dB gained over the best rival, by task.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        CheckpointError: a model cannot be read.
        EvaluationError: nothing can be scored.
    """
    reports, scans = layout.report("evaluate"), ThickScans(params.thicken.tasks, layout)
    model = load_checkpoint(layout.trained(judged().stage), params.base.device)
    autoencoder = load_autoencoder(layout.autoencoder / "autoencoder.safetensors").to(model.device)
    settings = Settings(memory_gib=params.generate.memory_gib)
    methods = Compared(model, params.evaluate.baselines, autoencoder, settings)
    scored = list(score_scans(scans, methods))
    write_tables(scored, reports)
    tasks = by_task(scored, methods.baselines)
    write_json(reports / "judged.json", {name: task.metrics for name, task in tasks.items() if not task.is_real})
    summaries = {name: task.summary for name, task in tasks.items()}
    first = replace(scans, tasks=scans.tasks[:1])
    summaries[first.tasks[0].name]["evidence"] = write_evidence(first, methods.restoring, reports)
    cases = read_cases(layout, "test")
    counts = {"cases": len(cases), "phantoms": sum(case.phantom for case in cases)}
    write_json(reports / "metrics.json", {"test": counts, **summaries})
    return {f"{task}_gain_db": values["gain_db"] for task, values in summaries.items()}


def score_scans(scans: Iterable[ThickScan], methods: Compared) -> Iterator[ScoredScan]:
    """Every method on every thick scan.

    Args:
        scans: of the test set.
        methods: that are scored.

    Yields:
        The scores of a scan, in the order of the scans.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        EvaluationError: a scan cannot be scored.
    """
    decoded: dict[tuple[Any, ...], Tensor] = {}  # the last truth, which several tasks share
    for scan in scans:
        measurement = scan.measurement()
        truth = measurement.known
        if (here := (scan.truth, truth.origin_mm, truth.depth)) not in decoded:
            decoded = {here: methods.decoded(truth.hu)}
        scored = []
        for result in score_methods(measurement, methods.on(scan, decoded[here])):
            logger.info(
                "case=%s task=%s method=%s psnr_db=%.2f ssim=%.4f seconds=%.1f peak_rss_mib=%.0f",
                scan.case, scan.task, result.method, result.scores.psnr_db, result.scores.ssim, result.seconds,
                result.peak_rss_mib,
            )  # fmt: skip
            scored.append(result)
        yield ScoredScan(scan, scored, judged_samples(scan, measurement))


def generated(path: Path, measurement: Measurement) -> Estimate:
    """The estimate of a measurement that generate wrote.

    Args:
        path: of the volume, on the thin grid of the measurement.
        measurement: whose operator gives the residual.

    Returns:
        The volume as an estimate, with its residual against the thick slices.

    Raises:
        MissingInputError: the file is not there.
        ScanError: it cannot be read.
    """
    return measurement.estimate(torch.from_numpy(read_scan(path).volume.hu))


def judged_samples(scan: ThickScan, measurement: Measurement) -> SampleScores:
    """Score the samples of the judged model.

    Args:
        scan: whose estimate, standard deviation and sample lie where `generate` put them.
        measurement: with the truth.

    Returns:
        How well the standard deviation tells the error, and the noise of a sample over that of the truth.

    Raises:
        MissingInputError: an estimate is not there.
        EvaluationError: a standard deviation is negative.
    """
    stage = judged().stage
    estimate, std, sample = (read_scan(path(stage)).volume.hu for path in (scan.estimate, scan.deviation, scan.sample))
    truth = Truth.of(measurement.known.hu, factor=measurement.factor)
    return SampleScores(calibrate(estimate, std, truth), noise_ratio(sample, truth))


def write_tables(scans: Sequence[ScoredScan], reports: Path) -> None:
    """Write what people look at: scores by case, errors by position in the thick slice, calibration by case."""
    rows, positions, spreads = [], [], []
    for scan, scored, (spread, noise) in scans:
        labels = {"case": scan.case, "factor": scan.factor, "profile": scan.profile}
        for result in scored:
            method = {**labels, "method": result.method}
            rows.append({**method, **result.scores.row()})
            by_position = enumerate(result.scores.mae_by_position_hu)
            positions += [{**method, "position": i, "mae_hu": v} for i, v in by_position]
        measured = {"coverage_90": spread.coverage_90, "correlation": spread.correlation, "sample_noise_ratio": noise}
        spreads.append(labels | {name: "" if value is None else value for name, value in measured.items()})
    for name, table in {"per_case": rows, "position": positions, "calibration": spreads}.items():
        write_csv(reports / f"{name}.csv", table, list(table[0]))


def by_task(scans: Iterable[ScoredScan], baselines: Sequence[str]) -> dict[str, ScoredTask]:
    """The tasks by name, in the order of the scans.

    Args:
        scans: of any tasks.
        baselines: the classical methods that the judged one is compared with.

    Returns:
        A task for each name that occurs.
    """
    tasks = defaultdict[str, list[ScoredScan]](list)
    for scored in scans:
        tasks[scored.scan.task].append(scored)
    return {name: ScoredTask(own, baselines) for name, own in tasks.items()}


def write_evidence(scans: ThickScans, methods: Mapping[str, Method], reports: Path) -> evidence.Summary:
    """Write `evidence.csv`, a line a number of what scores do not tell.

    Args:
        scans: whose thickened ones are looked at.
        methods: by name.
        reports: the folder.

    Returns:
        The judged model's means, by measure and by what it is measured at.
    """
    rows = [evidence.row(scan.case, finding) for scan in scans.thickened() for finding in evidence_of(scan, methods)]
    write_csv(reports / "evidence.csv", rows, evidence.EVIDENCE_COLUMNS)
    own = [line for line in rows if line["method"] == judged().name]
    return evidence.summary(pd.DataFrame(own, columns=list(evidence.EVIDENCE_COLUMNS)))


def evidence_of(scan: ThickScan, methods: Mapping[str, Method]) -> Iterator[evidence.MeasuredValue]:
    """Every number of a thickened scan, on a cube of it.

    Args:
        scan: whose estimate and standard deviation lie where `generate` put them.
        methods: by name.

    Yields:
        Findings of the methods, then how well the standard deviation ranks the errors, where it tells any apart.
    """
    start = time.perf_counter()
    measurement = scan.measurement()
    truth, stage = measurement.known, judged().stage
    part = evidence.cube(truth.hu.shape, truth.spacing_mm)
    thin = replace(truth, hu=np.ascontiguousarray(truth.hu[part]))
    thicken = partial(simulated, factor=scan.factor, profile=measurement.operator.profile)
    yield from evidence.findings(thin, evidence.Trial(thicken, methods))
    estimate, std = (read_scan(path(stage)).volume.hu[part] for path in (scan.estimate, scan.deviation))
    ranking = evidence.ranked(judged().name, std, estimate - thin.hu, scan.factor)
    if ranking is not None:
        yield ranking
    seconds = time.perf_counter() - start
    logger.info("case=%s task=%s evidence voxels=%d seconds=%.1f", scan.case, scan.task, thin.hu.size, seconds)
