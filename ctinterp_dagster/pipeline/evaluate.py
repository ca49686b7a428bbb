"""How far from the truth, against every baseline? Scores of the test cases as metrics.json, per_case.csv and plots."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ctinterp_dagster.evaluation.metrics import Truth
from ctinterp_dagster.evaluation.statistics import best_baseline, calibrate, summarise
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import load_autoencoder
from ctinterp_dagster.model.latent_diffusion import pick_device
from ctinterp_dagster.params import Params, Profile
from ctinterp_dagster.physics.operator import slices_to_keep
from ctinterp_dagster.pipeline.cases import CEILING, REFERENCES, ROWS, Case, read_cases, without_others
from ctinterp_dagster.pipeline.ceiling import autoencoder_ceiling
from ctinterp_dagster.pipeline.scoring import Restore, Scored, score_methods
from ctinterp_dagster.records import write_csv, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import Volume

logger = logging.getLogger(__name__)

SUMMARISED = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu", "residual_hu")


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/evaluate`: `per_case.csv`, `position.csv`, `calibration.csv` and `metrics.json`."""
    factor, reports = params.thicken.factor, layout.report("evaluate")
    autoencoder = load_autoencoder(layout.autoencoder / "autoencoder.safetensors").to(pick_device(params.base.device))
    rows: list[dict[str, Any]] = []
    positions: list[dict[str, Any]] = []
    spreads: list[dict[str, Any]] = []
    for case in read_cases(layout, "test"):
        thin = read_scan(case.thin(layout)).volume
        kept = torch.from_numpy(thin.hu[: slices_to_keep(thin.depth, factor)])
        ceiling = autoencoder_ceiling(autoencoder, kept, params.generate.memory_gib)
        for profile in params.thicken.profiles:
            labels = {"case": case.case, "factor": factor, "profile": profile}
            for scored in score_case(case, thin, ceiling, profile, params, layout):
                rows.append({**labels, "method": scored.method, **scored.scores.row()})
                by_position = enumerate(scored.scores.mae_by_position_hu)
                positions += [{**labels, "method": scored.method, "position": i, "mae_hu": v} for i, v in by_position]
                logger.info(
                    "case=%s profile=%s method=%s psnr_db=%.2f ssim=%.4f seconds=%.1f peak_rss_mib=%.0f",
                    case.case, profile, scored.method, scored.scores.psnr_db, scored.scores.ssim, scored.seconds,
                    scored.peak_rss_mib,
                )  # fmt: skip
            spreads.append({**labels, **calibration(case, thin, profile, params, layout)})
    for name, table in {"per_case": rows, "position": positions, "calibration": spreads}.items():
        write_csv(reports / f"{name}.csv", table, list(table[0]))
    metrics = summary(pd.DataFrame(rows), params.base.seed)
    write_json(reports / "metrics.json", metrics)
    return {f"{profile}_gain_db": values["gain_db"] for profile, values in metrics.items()}


def score_case(
    case: Case, thin: Volume, ceiling: Tensor, profile: Profile, params: Params, layout: Layout
) -> Iterator[Scored]:
    """Every method on one case; the models' estimates are those that generate wrote."""

    def generated(model: str) -> Restore:
        return lambda _thick_hu, _operator: torch.from_numpy(read_scan(case.estimate(layout, model, profile)).volume.hu)

    return score_methods(
        thin,
        read_scan(case.thick(layout, profile)).volume,
        factor=params.thicken.factor,
        profile=profile,
        baselines=params.evaluate.baselines,
        models={CEILING: lambda *_: ceiling, **{row: generated(model) for row, model in ROWS.items()}},
    )


def calibration(case: Case, thin: Volume, profile: Profile, params: Params, layout: Layout) -> dict[str, float | str]:
    """Whether the samples' spread says how wrong the estimate is."""
    estimate = read_scan(case.estimate(layout, "nullspace", profile)).volume.hu
    std = read_scan(case.deviation(layout, "nullspace", profile)).volume.hu
    result = calibrate(estimate, std, Truth.of(thin.hu[: estimate.shape[0]], factor=params.thicken.factor))
    correlation = "" if result.correlation is None else result.correlation
    return {"coverage_90": result.coverage_90, "correlation": correlation}


def summary(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """By profile: the model's means over the cases, the baselines' PSNR, and the gain over the best of them in dB."""
    metrics: dict[str, Any] = {}
    beside = (*REFERENCES, "model")
    for profile, group in rows.groupby("profile", sort=False):
        means = {name: summarise(group, name, seed=seed) for name in SUMMARISED}
        best = best_baseline(without_others(group), "psnr_db", method="model", higher_is_better=True, seed=seed)
        metrics[str(profile)] = {
            **{name: intervals["model"].mean for name, intervals in means.items()},
            "gain_db": best.interval.mean,
            "baseline_psnr_db": {name: i.mean for name, i in means["psnr_db"].items() if name not in beside},
        }
    return metrics
