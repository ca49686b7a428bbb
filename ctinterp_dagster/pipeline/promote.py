"""Does the challenger replace the champion?"""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from ctinterp_dagster import telemetry
from ctinterp_dagster.champion import DIGITS, JUDGED, Challenger, Registry, model_hash, seen_scans, trained_models
from ctinterp_dagster.decision import Decision, Finding, Metrics, Rule, TaskMetrics, count_shared_patients, read_record
from ctinterp_dagster.evaluation.gates import Rules, decide
from ctinterp_dagster.interpolation import Settings, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import judged
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.common.cases import read_cases, read_sources
from ctinterp_dagster.pipeline.testset.scoring import Scored, score_methods
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScans
from ctinterp_dagster.records import file_hash, read_json, write_json

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/promote/decision.json`, record the challenger, and move the champion's pointer if it has won.

    The same model on the same data gives the same decision: a challenger that is the champion already gives the one
    that made it so, again, and one that was rolled back stays refused.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `promoted`: 1 or 0.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        CheckpointError: the champion, which is scored anew on other test scans, cannot be read.
    """
    registry = Registry(layout.promote)
    challenger = measured(layout)
    champion, known = registry.champion, registry.get(challenger.model_hash)
    if champion and champion.model_hash == challenger.model_hash:
        logger.info("challenger=%s is the champion: decision repeated", challenger.model_hash[:DIGITS])
        decided = champion.decision
    elif known and known.rolled_back:
        text = f"the challenger was the champion and was rolled back: {known.rolled_back}"
        findings = (*known.decision.findings, Finding(Rule.ROLLED_BACK, "fail", text))
        decided = replace(known.decision, promoted=False, findings=findings)
    else:
        decided = judge(challenger, champion, params, layout)
        record = Challenger(
            model_hash=challenger.model_hash,
            number=known.number if known else len(registry.challengers),
            against=champion.model_hash if champion and judges(champion, layout) else None,
            decision=decided,
            metrics=challenger,
            seen=seen_scans(layout),
            data=data_hashes(layout),
            rolled_back="",
            sources=read_sources(layout, "train"),
        )
        if decided.promoted:
            registry.keep_files(challenger.model_hash, trained_models(layout))
        registry.record(record)
        if decided.promoted:
            registry.point_at(challenger.model_hash)
    for finding in decided.findings:
        logger.info(
            "challenger=%s rule=%s verdict=%s: %s",
            challenger.model_hash[:DIGITS],
            finding.rule,
            finding.verdict,
            finding.text,
        )
    write_json(layout.report("promote") / "decision.json", decided)
    telemetry.result(
        decision=("promoted" if decided.promoted else "not promoted"),
        reasons=telemetry.markdown("\n".join(f"- **{own.verdict}**: {own.text}" for own in decided.findings)),
        **{f"{name} dB": task.psnr_db for name, task in sorted(challenger.tasks.items())},
    )
    return {"promoted": float(decided.promoted)}


def judge(challenger: Metrics, champion: Challenger | None, params: Params, layout: Layout) -> Decision:
    """The gate's decision, with the champion measured on the same tasks of the same test set.

    A champion that was trained on other data, none of whose cases is here, such as the phantoms, judges nothing.

    Args:
        challenger: what was measured of it.
        champion: its record; None before the first.
        params: of all stages.
        layout: where things are.

    Returns:
        The decision, with a finding for each rule.

    Raises:
        MissingInputError: the files of the champion, which is scored anew, are not there.
        CheckpointError: they cannot be read.
    """
    stranger = champion if champion and not judges(champion, layout) else None
    rival = champion.metrics if champion and not stranger else None
    if rival and (rival.test_set_hash, set(rival.tasks)) != (challenger.test_set_hash, set(challenger.tasks)):
        rival = rescored(rival, challenger, params, layout)
    decision = decide(challenger, rival, Rules(**params.promote.model_dump(), seed=params.base.seed))
    findings = list(decision.findings)
    if stranger:
        text = (
            f"the champion {stranger.name} was trained on {len(stranger.seen)} other scans, none of which is here: it "
            "judges no model of these"
        )
        findings = [replace(finding, text=text) if finding.rule == Rule.CHAMPION else finding for finding in findings]
    if any(case.phantom for case in read_cases(layout, "test")):
        text = "the test set is of built-in phantoms, which stand in until scans are added: no figure is of a patient"
        findings.insert(0, Finding(Rule.TASKS, "note", text))
    return replace(decision, findings=tuple(findings))


def judges(champion: Challenger, layout: Layout) -> bool:
    """Whether a champion was trained on any of the present cases."""
    return not champion.seen.keys().isdisjoint(seen_scans(layout))


def data_hashes(layout: Layout) -> dict[str, str]:
    """What the challenger was made from and measured on: SHA-256 of three files, by what they hold."""
    return {
        "volumes": file_hash(layout.ingest / "manifest.json"),
        "thick scans": file_hash(layout.thicken / "manifest.json"),
        "scores": file_hash(layout.report("evaluate") / "judged.json"),
    }


def measured(layout: Layout) -> Metrics:
    """What evaluate found of the model that train wrote.

    Args:
        layout: where things are.

    Returns:
        The metrics of each task, and the hashes of model and test set.

    Raises:
        MissingInputError: evaluate or train has not run.
    """
    return Metrics(
        model_hash=model_hash(trained_models(layout)),
        test_set_hash=hash_of_test_set(layout),
        tasks=read_record(dict[str, TaskMetrics], layout.report("evaluate") / "judged.json"),
        shared_patients=count_shared_patients((case.patient, case.split) for case in read_cases(layout)),
    )


def hash_of_test_set(layout: Layout) -> str:
    """What identifies the test set: its cases and the hashes of their volumes."""
    manifest = read_json(layout.ingest / "manifest.json")
    cases = {case.case: manifest[case.case]["outputs"] for case in read_cases(layout, "test")}
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def rescored(champion: Metrics, challenger: Metrics, params: Params, layout: Layout) -> Metrics:
    """The champion measured on the present tasks and test set, which are not those that it was promoted on.

    Args:
        champion: what was measured of it then.
        challenger: what was measured on the present ones.
        params: of all stages.
        layout: where things are.

    Returns:
        The same model's metrics on the challenger's tasks.

    Raises:
        MissingInputError: the champion's files, or those of a test case, are not there.
        CheckpointError: the champion cannot be read.
        EvaluationError: a scan cannot be scored.
    """
    logger.info("champion=%s is scored on a test set or tasks that have changed", champion.model_hash[:DIGITS])
    model = load_checkpoint(Registry(layout.promote).files(champion.model_hash) / JUDGED, params.base.device)
    own = {judged().name: model.by(Settings(memory_gib=params.generate.memory_gib))}
    tasks = defaultdict[str, dict[str, Scored]](dict)
    for scan in ThickScans(params.thicken.tasks, layout).thickened():
        (scored,) = score_methods(scan.measurement(), own)
        tasks[scan.task][scan.case] = scored
    measured_on = {
        name: replace(
            challenger.tasks[name],
            psnr_db_by_case={case: result.scores.psnr_db for case, result in by_case.items()},
            residual_hu=max(result.scores.residual_hu for result in by_case.values()),
        )
        for name, by_case in tasks.items()
    }
    return replace(champion, tasks=measured_on, test_set_hash=challenger.test_set_hash)
