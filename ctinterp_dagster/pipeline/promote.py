"""Does the challenger replace the champion?"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from ctinterp_dagster.champion import JUDGED, Challenger, Registry, model_hash, seen_scans, trained_models
from ctinterp_dagster.evaluation.gates import Finding, Metrics, Rules, TaskMetrics, decide
from ctinterp_dagster.evaluation.statistics import best_baseline, by_task, without_references
from ctinterp_dagster.interpolation import Settings, load_checkpoint, synthetic
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import judged
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.cases import REAL, read_cases
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.records import Rule, count_shared_patients, file_hash, read_json, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/promote/decision.json`, record the challenger, and move the champion's pointer if it has won.

    The same model on the same data gives the same decision: a challenger that is the champion already gives the one
    that made it so, again, and one that was rolled back stays refused.
    """
    registry = Registry(layout.promote)
    challenger = measured(params, layout)
    champion, known = registry.champion, registry.get(challenger.model_hash)
    if champion and champion.model_hash == challenger.model_hash:
        logger.info("the challenger is the champion: decision repeated")
        decided = champion.decision
    elif known and known.rolled_back:
        text = f"the challenger was the champion and was rolled back: {known.rolled_back}"
        finding = asdict(Finding(Rule.ROLLED_BACK, "fail", text))
        decided = {**known.decision, "promoted": False, "findings": [*known.decision["findings"], finding]}
    else:
        decided = judge(challenger, champion, params, layout)
        record = Challenger(
            model_hash=challenger.model_hash,
            number=known.number if known else len(registry.challengers),
            against=champion.model_hash if champion else None,
            decision=decided,
            metrics=asdict(challenger),
            seen=seen_scans(layout),
            data=data_hashes(layout),
            rolled_back="",
        )
        if decided["promoted"]:
            registry.keep_files(challenger.model_hash, trained_models(layout))
        registry.record(record)
        if decided["promoted"]:
            registry.point_at(challenger.model_hash)
    for finding in decided["findings"]:
        logger.info("%s: %s", finding["verdict"], finding["text"])
    write_json(layout.report("promote") / "decision.json", decided)
    return {"promoted": float(decided["promoted"])}


def judge(challenger: Metrics, champion: Challenger | None, params: Params, layout: Layout) -> dict[str, Any]:
    """The gate's decision, with the champion measured on the same tasks of the same test set."""
    rival = frozen(champion.metrics) if champion else None
    if rival and (rival.test_set_hash, set(rival.tasks)) != (challenger.test_set_hash, set(challenger.tasks)):
        rival = rescored(rival, challenger, params, layout)
    decision = decide(challenger, rival, Rules(**params.promote.model_dump(), seed=params.base.seed))
    return {
        "promoted": decision.promoted,
        "findings": [asdict(f) for f in decision.findings],
        "challenger": challenger.model_hash,
    }


def data_hashes(layout: Layout) -> dict[str, str]:
    """What the challenger was made from and measured on."""
    return {
        "volumes": file_hash(layout.ingest / "manifest.json"),
        "thick scans": file_hash(layout.thicken / "manifest.json"),
        "scores": file_hash(layout.report("evaluate") / "per_case.csv"),
    }


def measured(params: Params, layout: Layout) -> Metrics:
    """What evaluate found of the models that train and latent wrote."""
    rows = pd.read_csv(layout.report("evaluate") / "per_case.csv")
    rows = rows[rows["profile"] != REAL]  # shown, and no gate: a champion may never have seen these pairs
    tasks = {}
    for name, group in by_task(rows):
        own = group[group["method"] == judged().name]
        rivals = without_references(group)
        best = best_baseline(rivals, "psnr_db", method=judged().name, higher_is_better=True, seed=params.base.seed)
        by_case = {str(row["case"]): float(row["psnr_db"]) for row in own.to_dict("records")}
        mean = sum(by_case.values()) / len(by_case)
        tasks[name] = TaskMetrics(by_case, float(own["residual_hu"].max()), best.baseline, mean - best.interval.mean)
    return Metrics(
        model_hash=model_hash(trained_models(layout)),
        test_set_hash=hash_of_test_set(layout),
        tasks=tasks,
        shared_patients=count_shared_patients((case.patient, case.split) for case in read_cases(layout)),
    )


def hash_of_test_set(layout: Layout) -> str:
    """What identifies the test set: its cases and the hashes of their volumes."""
    manifest = read_json(layout.ingest / "manifest.json")
    cases = {case.case: manifest[case.case]["outputs"] for case in read_cases(layout, "test")}
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def frozen(record: Mapping[str, Any]) -> Metrics:
    """A champion's metrics from its record."""
    return Metrics(**{**record, "tasks": {name: TaskMetrics(**task) for name, task in record["tasks"].items()}})


def rescored(champion: Metrics, challenger: Metrics, params: Params, layout: Layout) -> Metrics:
    """The champion measured on the present tasks and test set, which are not those that it was promoted on."""
    logger.info("the test set or the tasks have changed since the champion was promoted: scoring the champion on them")
    model = load_checkpoint(Registry(layout.promote).files(champion.model_hash) / JUDGED, params.base.device)
    tasks = {}
    for task in params.thicken.tasks:
        scores = {}
        for case in read_cases(layout, "test"):
            thick = read_scan(case.thick(layout, task.name)).volume
            measurement = synthetic(read_scan(case.thin(layout)).volume, thick, task.factor, task.profile)
            (scored,) = score_methods(
                measurement, {judged().name: model.by(Settings(memory_gib=params.generate.memory_gib))}
            )
            scores[case.case] = scored.scores
        tasks[task.name] = replace(
            challenger.tasks[task.name],
            psnr_db_by_case={case: s.psnr_db for case, s in scores.items()},
            residual_hu=max(s.residual_hu for s in scores.values()),
        )
    return replace(champion, tasks=tasks, test_set_hash=challenger.test_set_hash)
