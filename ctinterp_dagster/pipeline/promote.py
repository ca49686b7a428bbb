"""Does the challenger replace the champion?"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pandas as pd

from ctinterp_dagster.evaluation.gates import Metrics, Rules, TaskMetrics, count_shared_patients, decide
from ctinterp_dagster.evaluation.page import task_name
from ctinterp_dagster.evaluation.statistics import best_baseline
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.cases import read_cases, without_others
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.records import file_hash, read_json, whole_file, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/promote/decision.json`, and move the champion's pointer if the challenger has won.

    The champion is `data/promote/champion.json`, which names a weights file beside it. The weights are in place before
    the pointer moves, in one step, so an interruption leaves the old champion or the new one, whole. A challenger that
    is the champion already gives the decision that made it so, again.
    """
    challenger = measured(params, layout)
    pointer = layout.promote / "champion.json"
    record = read_json(pointer) if pointer.exists() else None
    if record and record["metrics"]["model_hash"] == challenger.model_hash:
        logger.info("the challenger is the champion: decision repeated")
        decided = record["decision"]
    else:
        champion = frozen(record["metrics"]) if record else None
        if champion and champion.test_set_hash != challenger.test_set_hash:
            champion = rescored(champion, challenger, params, layout)
        decision = decide(challenger, champion, Rules(**params.promote.model_dump()))
        decided = {
            "promoted": decision.promoted,
            "findings": [asdict(f) for f in decision.findings],
            "challenger": challenger.model_hash,
        }
        if decision.promoted:
            crown(layout, challenger, decided)
    for finding in decided["findings"]:
        logger.info("%s: %s", finding["verdict"], finding["text"])
    write_json(layout.report("promote") / "decision.json", decided)
    return {"promoted": float(decided["promoted"])}


def measured(params: Params, layout: Layout) -> Metrics:
    """What evaluate found of the model that train wrote."""
    rows = pd.read_csv(layout.report("evaluate") / "per_case.csv")
    tasks = {}
    for profile, group in rows.groupby("profile"):
        own = group[group["method"] == "model"]
        rivals = without_others(group)
        best = best_baseline(rivals, "psnr_db", method="model", higher_is_better=True, seed=params.base.seed)
        mean = float(own["psnr_db"].mean())
        tasks[task_name(str(profile), params.thicken.factor)] = TaskMetrics(
            mean, float(own["residual_hu"].max()), best.baseline, mean - best.interval.mean
        )
    splits: dict[str, set[str]] = {}
    for case in read_cases(layout):
        splits.setdefault(case.split, set()).add(case.patient)
    return Metrics(
        model_hash=file_hash(layout.trained("nullspace")),
        test_set_hash=hash_of_test_set(layout),
        tasks=tasks,
        shared_patients=count_shared_patients(splits),
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
    """The champion measured on the present test set, which is not the one that it was promoted on."""
    logger.info("the test set has changed since the champion was promoted: scoring the champion on it")
    factor = params.thicken.factor
    model = load_checkpoint(layout.promote / f"{champion.model_hash}.safetensors", params.base.device)
    tasks = {}
    for profile in params.thicken.profiles:
        scores = []
        for case in read_cases(layout, "test"):
            thick = read_scan(case.thick(layout, profile)).volume
            scored = score_methods(
                read_scan(case.thin(layout)).volume,
                thick,
                factor=factor,
                profile=profile,
                baselines=(),
                models={"model": model.means(thick.spacing_mm, params.generate.memory_gib)},
            )
            scores += [one.scores for one in scored]
        name = task_name(profile, factor)
        tasks[name] = replace(
            challenger.tasks[name],
            psnr_db=sum(s.psnr_db for s in scores) / len(scores),
            residual_hu=max(s.residual_hu for s in scores),
        )
    return replace(champion, tasks=tasks, test_set_hash=challenger.test_set_hash)


def crown(layout: Layout, challenger: Metrics, decision: Mapping[str, Any]) -> None:
    """Put the weights in place, then move the pointer; weights that it no longer names are removed."""
    name = f"{challenger.model_hash}.safetensors"
    with whole_file(layout.promote / name) as partial:
        shutil.copyfile(layout.trained("nullspace"), partial)
    write_json(layout.promote / "champion.json", {"weights": name, "metrics": asdict(challenger), "decision": decision})
    for other in layout.promote.glob("*.safetensors"):
        if other.name != name:
            other.unlink()
