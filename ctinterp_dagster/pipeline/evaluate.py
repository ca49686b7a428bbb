"""How far from the truth, against every baseline? Scores of the test cases, for the gate and as tables."""

import logging
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ctinterp_dagster.decision import TaskMetrics
from ctinterp_dagster.evaluation.metrics import Scores, Truth
from ctinterp_dagster.evaluation.statistics import calibrate
from ctinterp_dagster.interpolation import Interpolator, Measurement, Method, Settings, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import CEILING, REGRESSION, judged, trained
from ctinterp_dagster.model.autoencoder import load_autoencoder
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.params import Params
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.ceiling import autoencoder_ceiling
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.pipeline.testset import ThickScan, thick_scans
from ctinterp_dagster.records import write_csv, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)

SUMMARISED = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/evaluate`: `judged.json`, `metrics.json`, `per_case.csv`, `position.csv` and `calibration.csv`."""
    reports = layout.report("evaluate")
    rows: list[dict[str, Any]] = []
    positions: list[dict[str, Any]] = []
    spreads: list[dict[str, Any]] = []
    scores: dict[str, dict[str, dict[str, Scores]]] = {}  # by task, method and case
    real = set[str]()
    model = load_checkpoint(layout.trained(judged().stage), params.base.device)
    autoencoder = load_autoencoder(layout.autoencoder / "autoencoder.safetensors").to(pick_device(params.base.device))
    decoded: dict[tuple[Any, ...], Tensor] = {}  # the last truth, which several tasks share
    for scan in thick_scans(params, layout):
        measurement = scan.measurement()
        truth = measurement.known
        if (here := (scan.truth, truth.origin_mm, truth.depth)) not in decoded:
            hu = torch.from_numpy(truth.hu)
            decoded = {here: autoencoder_ceiling(autoencoder, hu, params.generate.memory_gib)}
        labels = {"case": scan.case, "factor": scan.factor, "profile": scan.profile}
        for scored in score_methods(measurement, methods_on(scan, decoded[here], model, params, layout)):
            row = {**labels, "method": scored.method}
            rows.append({**row, **scored.scores.row()})
            by_position = enumerate(scored.scores.mae_by_position_hu)
            positions += [{**row, "position": i, "mae_hu": v} for i, v in by_position]
            scores.setdefault(scan.task, {}).setdefault(scored.method, {})[scan.case] = scored.scores
            logger.info(
                "case=%s task=%s method=%s psnr_db=%.2f ssim=%.4f seconds=%.1f peak_rss_mib=%.0f",
                scan.case, scan.task, scored.method, scored.scores.psnr_db, scored.scores.ssim,
                scored.seconds, scored.peak_rss_mib,
            )  # fmt: skip
        spreads.append({**labels, **calibration(scan, measurement, layout)})
        if scan.is_real:
            real.add(scan.task)
    for name, table in {"per_case": rows, "position": positions, "calibration": spreads}.items():
        write_csv(reports / f"{name}.csv", table, list(table[0]))
    tasks = {task: task_metrics(by_method, params) for task, by_method in scores.items()}
    write_json(reports / "judged.json", {task: metrics for task, metrics in tasks.items() if task not in real})
    summaries = {task: summary(scores[task], metrics, params) for task, metrics in tasks.items()}
    write_json(reports / "metrics.json", summaries)
    return {f"{task}_gain_db": values["gain_db"] for task, values in summaries.items()}


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

    def generated(stage: str) -> Method:
        return lambda it: it.estimate(torch.from_numpy(read_scan(scan.estimate(layout, stage)).volume.hu))

    methods: dict[str, Method] = {name: METHODS[name] for name in params.evaluate.baselines}
    methods[CEILING] = lambda it: it.estimate(decoded)
    methods |= {row: generated(stage) for row, stage in trained().items()}
    methods[REGRESSION] = model.by(Settings(memory_gib=params.generate.memory_gib, mirror=False))
    return methods


def calibration(scan: ThickScan, measurement: Measurement, layout: Layout) -> dict[str, float | str]:
    """Whether the samples' spread says how wrong the judged model's estimate is."""
    stage = judged().stage
    estimate, std = (read_scan(path(layout, stage)).volume.hu for path in (scan.estimate, scan.deviation))
    result = calibrate(estimate, std, Truth.of(measurement.known.hu, factor=measurement.factor))
    correlation = "" if result.correlation is None else result.correlation
    return {"coverage_90": result.coverage_90, "correlation": correlation}


def task_metrics(scores: Mapping[str, Mapping[str, Scores]], params: Params) -> TaskMetrics:
    """What the gate is shown of one task.

    Args:
        scores: by method and case.
        params: of all stages.
    """
    own = scores[judged().name]
    baselines = mean_psnr_db(scores, params)
    best = max(baselines, key=baselines.__getitem__)
    by_case = {case: it.psnr_db for case, it in own.items()}
    return TaskMetrics(by_case, max(it.residual_hu for it in own.values()), best, baselines[best])


def summary(scores: Mapping[str, Mapping[str, Scores]], metrics: TaskMetrics, params: Params) -> dict[str, Any]:
    """Of one task: the model's means over the cases, the baselines' PSNR, and the gain over the best of them in dB."""
    own = scores[judged().name].values()
    return {
        **{name: fmean(getattr(it, name) for it in own) for name in SUMMARISED},
        "gain_db": metrics.psnr_db - metrics.baseline_psnr_db,
        "baseline_psnr_db": mean_psnr_db(scores, params),
    }


def mean_psnr_db(scores: Mapping[str, Mapping[str, Scores]], params: Params) -> dict[str, float]:
    """Of every baseline, over the cases of one task."""
    return {name: fmean(it.psnr_db for it in scores[name].values()) for name in params.evaluate.baselines}
