"""How far from the truth, against every baseline? Scores of the test cases, for the gate and as tables."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ctinterp_dagster.decision import TaskMetrics
from ctinterp_dagster.evaluation.metrics import Scores, Truth, noise_ratio
from ctinterp_dagster.evaluation.statistics import Calibration, calibrate
from ctinterp_dagster.interpolation import Estimate, Interpolator, Measurement, Method, Settings, load_checkpoint
from ctinterp_dagster.latent.ceiling import autoencoder_ceiling
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import CEILING, REGRESSION, judged, trained
from ctinterp_dagster.model.autoencoder import load_autoencoder
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.params import Params
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.pipeline.testset.evidence import write_evidence
from ctinterp_dagster.pipeline.testset.scoring import Scored, score_methods
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScan, thick_scans
from ctinterp_dagster.records import write_csv, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)

ByMethod = Mapping[str, Mapping[str, Scores]]
"""Scores by method and case."""

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


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/evaluate`: `judged.json`, `metrics.json`, and the tables of cases as CSV.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        the PSNR in dB gained over the best rival, by task.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        CheckpointError: a model cannot be read.
        EvaluationError: nothing can be scored.
    """
    reports = layout.report("evaluate")
    model = load_checkpoint(layout.trained(judged().stage), params.base.device)
    scans = list(score_test_set(model, params, layout))
    write_tables(scans, reports)
    evidence = write_evidence(model, params, layout, reports)
    tasks = {it.scan.task: it.scan.is_real for it in scans}
    scores = {task: by_method(scans, task) for task in tasks}
    metrics = {task: task_metrics(scores[task], [it for it in scans if it.scan.task == task], params) for task in tasks}
    write_json(reports / "judged.json", {task: metrics[task] for task, is_real in tasks.items() if not is_real})
    summaries = {task: summary(scores[task], metrics[task], params) for task in tasks}
    summaries[params.thicken.tasks[0].name]["evidence"] = evidence
    cases = read_cases(layout, "test")
    counts = {"cases": len(cases), "phantoms": sum(case.phantom for case in cases)}
    write_json(reports / "metrics.json", {"test": counts, **summaries})
    return {f"{task}_gain_db": values["gain_db"] for task, values in summaries.items()}


def score_test_set(model: Interpolator, params: Params, layout: Layout) -> Iterator[ScoredScan]:
    """Every method on every thick scan.

    Args:
        model: the trained model.
        params: of all stages.
        layout: where things are.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        CheckpointError: the autoencoder cannot be read.
        EvaluationError: a scan cannot be scored.
    """
    autoencoder = load_autoencoder(layout.autoencoder / "autoencoder.safetensors").to(pick_device(params.base.device))
    decoded: dict[tuple[Any, ...], Tensor] = {}  # the last truth, which several tasks share
    for scan in thick_scans(params, layout):
        measurement = scan.measurement()
        truth = measurement.known
        if (here := (scan.truth, truth.origin_mm, truth.depth)) not in decoded:
            hu = torch.from_numpy(truth.hu)
            decoded = {here: autoencoder_ceiling(autoencoder, hu, params.generate.memory_gib)}
        scored = []
        for it in score_methods(measurement, methods_on(scan, decoded[here], model, params, layout)):
            logger.info(
                "case=%s task=%s method=%s psnr_db=%.2f ssim=%.4f seconds=%.1f peak_rss_mib=%.0f",
                scan.case, scan.task, it.method, it.scores.psnr_db, it.scores.ssim, it.seconds, it.peak_rss_mib,
            )  # fmt: skip
            scored.append(it)
        yield ScoredScan(scan, scored, judged_samples(scan, measurement, layout))


def methods_on(
    scan: ThickScan, decoded: Tensor, model: Interpolator, params: Params, layout: Layout
) -> dict[str, Method]:
    """Every method that a thick scan is scored with; the models' estimates are those that generate wrote.

    The regression alone, with which the judged model is compared, is computed here.

    Args:
        scan: the thick scan.
        decoded: its truth, encoded and decoded, (z, y, x) HU.
        model: the judged one.
        params: of all stages.
        layout: where things are.
    """
    methods: dict[str, Method] = {name: METHODS[name] for name in params.evaluate.baselines}
    methods[CEILING] = partial(Measurement.estimate, hu=decoded)
    methods |= {row: partial(generated, scan.estimate(layout, stage)) for row, stage in trained().items()}
    methods[REGRESSION] = model.by(Settings(memory_gib=params.generate.memory_gib, mirror=False))
    return methods


def generated(path: Path, measurement: Measurement) -> Estimate:
    """The estimate of a measurement that generate wrote.

    Args:
        path: of the volume, on the thin grid of the measurement.
        measurement: whose operator gives the residual.

    Raises:
        MissingInputError: the file is not there.
        ScanError: it cannot be read.
    """
    return measurement.estimate(torch.from_numpy(read_scan(path).volume.hu))


def judged_samples(scan: ThickScan, measurement: Measurement, layout: Layout) -> SampleScores:
    """Score the samples of the judged model.

    Args:
        scan: whose estimate, standard deviation and sample lie where `generate` put them.
        measurement: with the truth.
        layout: where things are.

    Raises:
        MissingInputError: an estimate is not there.
        EvaluationError: a standard deviation is negative.
    """
    stage = judged().stage
    estimate, std, sample = (
        read_scan(path(layout, stage)).volume.hu for path in (scan.estimate, scan.deviation, scan.sample)
    )
    truth = Truth.of(measurement.known.hu, factor=measurement.factor)
    return SampleScores(calibrate(estimate, std, truth), noise_ratio(sample, truth))


def write_tables(scans: Sequence[ScoredScan], reports: Path) -> None:
    """Write what people look at: scores by case, errors by position in the thick slice, calibration by case."""
    rows, positions, spreads = [], [], []
    for scan, scored, (spread, noise) in scans:
        labels = {"case": scan.case, "factor": scan.factor, "profile": scan.profile}
        for it in scored:
            method = {**labels, "method": it.method}
            rows.append({**method, **it.scores.row()})
            by_position = enumerate(it.scores.mae_by_position_hu)
            positions += [{**method, "position": i, "mae_hu": v} for i, v in by_position]
        measured = {"coverage_90": spread.coverage_90, "correlation": spread.correlation, "sample_noise_ratio": noise}
        spreads.append(labels | {name: "" if value is None else value for name, value in measured.items()})
    for name, table in {"per_case": rows, "position": positions, "calibration": spreads}.items():
        write_csv(reports / f"{name}.csv", table, list(table[0]))


def by_method(scans: Sequence[ScoredScan], task: str) -> ByMethod:
    """The scores of one task, by method and case."""
    scores = defaultdict[str, dict[str, Scores]](dict)
    for scan, scored, _ in scans:
        if scan.task == task:
            for it in scored:
                scores[it.method][scan.case] = it.scores
    return scores


def task_metrics(scores: ByMethod, scans: Sequence[ScoredScan], params: Params) -> TaskMetrics:
    """What the gate is shown of one task.

    Args:
        scores: by method and case.
        scans: those of the task.
        params: of all stages.
    """
    own = scores[judged().name]
    baselines = mean_psnr_db(scores, params)
    best = max(baselines, key=baselines.__getitem__)
    by_case = {case: it.psnr_db for case, it in own.items()}
    return TaskMetrics(
        by_case,
        max(it.residual_hu for it in own.values()),
        best,
        baselines[best],
        coverage_90=fmean(it.samples.calibration.coverage_90 for it in scans),
        correlation=mean_of_all([it.samples.calibration.correlation for it in scans]),
        sample_noise_ratio=mean_of_all([it.samples.noise_ratio for it in scans]),
    )


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None where one is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def summary(scores: ByMethod, metrics: TaskMetrics, params: Params) -> dict[str, Any]:
    """What `metrics.json` says of one task.

    Args:
        scores: by method and case.
        metrics: what the gate is shown of the task.
        params: of all stages, which name the baselines.

    Returns:
        Means over the cases: of the judged model's scores and calibration, of its gain over the best baseline in dB,
        and of the PSNR of each baseline in dB.
    """
    own = scores[judged().name].values()
    return {
        **{name: fmean(getattr(it, name) for it in own) for name in SUMMARISED},
        **{name: value for name in CALIBRATION if (value := getattr(metrics, name)) is not None},
        "gain_db": metrics.psnr_db - metrics.baseline_psnr_db,
        "baseline_psnr_db": mean_psnr_db(scores, params),
    }


def mean_psnr_db(scores: ByMethod, params: Params) -> dict[str, float]:
    """PSNR of every baseline in [-1000, 1000] HU, dB, mean over the cases of one task.

    Args:
        scores: of the task.
        params: name the baselines.
    """
    return {name: fmean(it.psnr_db for it in scores[name].values()) for name in params.evaluate.baselines}
