"""How far from the truth, against every baseline? Scores of the test cases as metrics.json, per_case.csv and plots."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ctinterp_dagster.evaluation.metrics import Truth
from ctinterp_dagster.evaluation.statistics import best_baseline, by_task, calibrate, summarise, without_references
from ctinterp_dagster.interpolation import Interpolator, Measurement, Method, Settings, load_checkpoint, synthetic
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import CEILING, REGRESSION, Role, judged, names, trained
from ctinterp_dagster.model.autoencoder import load_autoencoder
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.params import Params, task_name
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.cases import REAL, read_cases
from ctinterp_dagster.pipeline.ceiling import autoencoder_ceiling
from ctinterp_dagster.pipeline.real import real_pairs
from ctinterp_dagster.pipeline.scoring import Scored, score_methods
from ctinterp_dagster.records import write_csv, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)

SUMMARISED = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")


@dataclass(frozen=True)
class Task:
    """A thick scan whose truth is known, and where generate put the estimates of it.

    Attributes:
        labels: case, factor and profile of its rows.
        measurement: thick scan and truth.
        ceiling: the truth, encoded and decoded.
        estimates: by stage, the mean of its model.
        deviation: the standard deviation of the model that is judged.
    """

    labels: Mapping[str, str | float]
    measurement: Measurement
    ceiling: Tensor
    estimates: Mapping[str, Path]
    deviation: Path


def tasks(params: Params, layout: Layout) -> Iterator[Task]:
    """The thickened test cases, and the real thick scans that have a test case as their truth."""
    autoencoder = load_autoencoder(layout.autoencoder / "autoencoder.safetensors").to(pick_device(params.base.device))
    for case in read_cases(layout, "test"):
        thin = read_scan(case.thin(layout)).volume
        ceilings: dict[int, Tensor] = {}  # by depth
        for task in params.thicken.tasks:
            thick = read_scan(case.thick(layout, task.name)).volume
            measurement = synthetic(thin, thick, task.factor, task.profile)
            depth = measurement.known.depth
            if depth not in ceilings:
                kept = torch.from_numpy(measurement.known.hu)
                ceilings[depth] = autoencoder_ceiling(autoencoder, kept, params.generate.memory_gib)
            yield Task(
                labels={"case": case.case, "factor": task.factor, "profile": task.profile},
                measurement=measurement,
                ceiling=ceilings[depth],
                estimates={stage: case.estimate(layout, stage, task.name) for stage in trained().values()},
                deviation=case.deviation(layout, judged().stage, task.name),
            )
    for pair, measurement in real_pairs(layout):
        thin_hu = torch.from_numpy(measurement.known.hu)
        yield Task(
            labels={"case": pair.case, "factor": measurement.factor, "profile": REAL},
            measurement=measurement,
            ceiling=autoencoder_ceiling(autoencoder, thin_hu, params.generate.memory_gib),
            estimates={stage: pair.estimate(layout, stage) for stage in trained().values()},
            deviation=pair.deviation(layout, judged().stage),
        )


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/evaluate`: `per_case.csv`, `position.csv`, `calibration.csv` and `metrics.json`."""
    reports = layout.report("evaluate")
    rows: list[dict[str, Any]] = []
    positions: list[dict[str, Any]] = []
    spreads: list[dict[str, Any]] = []
    model = load_checkpoint(layout.trained(judged().stage), params.base.device)
    for task in tasks(params, layout):
        name = task_name(str(task.labels["profile"]), task.measurement.factor)
        for scored in score_task(task, params, model):
            labels = {**task.labels, "method": scored.method}
            rows.append({**labels, **scored.scores.row()})
            by_position = enumerate(scored.scores.mae_by_position_hu)
            positions += [{**labels, "position": i, "mae_hu": v} for i, v in by_position]
            logger.info(
                "case=%s task=%s method=%s psnr_db=%.2f ssim=%.4f seconds=%.1f peak_rss_mib=%.0f",
                labels["case"], name, scored.method, scored.scores.psnr_db, scored.scores.ssim,
                scored.seconds, scored.peak_rss_mib,
            )  # fmt: skip
        spreads.append({**task.labels, **calibration(task)})
    for name, table in {"per_case": rows, "position": positions, "calibration": spreads}.items():
        write_csv(reports / f"{name}.csv", table, list(table[0]))
    metrics = summary(pd.DataFrame(rows), params.base.seed)
    write_json(reports / "metrics.json", metrics)
    return {f"{task}_gain_db": values["gain_db"] for task, values in metrics.items()}


def score_task(task: Task, params: Params, model: Interpolator) -> Iterator[Scored]:
    """Every method on one thick scan; the models' estimates are those that generate wrote.

    The regression alone, with which the judged model is compared, is computed here.
    """

    def generated(stage: str) -> Method:
        return lambda it: it.estimate(torch.from_numpy(read_scan(task.estimates[stage]).volume.hu))

    methods: dict[str, Method] = {name: METHODS[name] for name in params.evaluate.baselines}
    methods[CEILING] = lambda it: it.estimate(task.ceiling)
    methods |= {row: generated(stage) for row, stage in trained().items()}
    methods[REGRESSION] = model.by(Settings(memory_gib=params.generate.memory_gib, mirror=False))
    return score_methods(task.measurement, methods)


def calibration(task: Task) -> dict[str, float | str]:
    """Whether the samples' spread says how wrong the estimate is."""
    estimate = read_scan(task.estimates[judged().stage]).volume.hu
    std = read_scan(task.deviation).volume.hu
    result = calibrate(estimate, std, Truth.of(task.measurement.known.hu, factor=task.measurement.factor))
    correlation = "" if result.correlation is None else result.correlation
    return {"coverage_90": result.coverage_90, "correlation": correlation}


def summary(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """By task: the model's means over the cases, the baselines' PSNR, and the gain over the best of them in dB."""
    metrics: dict[str, Any] = {}
    own, beside = judged().name, names(Role.REFERENCE, Role.JUDGED)
    for task, group in by_task(rows):
        means = {name: summarise(group, name, seed=seed) for name in SUMMARISED}
        best = best_baseline(without_references(group), "psnr_db", method=own, higher_is_better=True, seed=seed)
        metrics[task] = {
            **{name: intervals[own].mean for name, intervals in means.items()},
            "gain_db": best.interval.mean,
            "baseline_psnr_db": {name: i.mean for name, i in means["psnr_db"].items() if name not in beside},
        }
    return metrics
