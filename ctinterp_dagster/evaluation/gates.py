"""Whether a challenger replaces the champion: pure functions of measured numbers, the same answer each time."""

import math
from dataclasses import dataclass

from ctinterp_dagster.decision import Decision, Finding, Metrics, Rule, TaskMetrics
from ctinterp_dagster.evaluation.statistics import bootstrap_mean


@dataclass(frozen=True)
class Rules:
    """What a challenger must show.

    Attributes:
        max_residual_hu: largest mean |A x - y| of any case, HU.
        baseline_margin_db: by how much the mean PSNR must exceed the best baseline's, dB.
        champion_margin_db: how far the lower bound of the mean paired difference in PSNR to the champion may lie below
            zero, dB.
        coverage_90: smallest and largest share of the truth that the 90 % interval may hold.
        required: which of the rules `baseline` and `calibration` refuse a challenger; the others are only noted.
        seed: of the bootstrap.
    """

    max_residual_hu: float
    baseline_margin_db: float
    champion_margin_db: float
    coverage_90: tuple[float, float]
    required: tuple[str, ...]
    seed: int


def decide(challenger: Metrics, champion: Metrics | None, rules: Rules) -> Decision:
    """Judge a challenger.

    It is promoted when no rule fails. A challenger that is the champion is kept, whatever the rules: deciding twice
    changes nothing.

    Args:
        challenger: the new model's metrics.
        champion: the present champion's, None before the first.
        rules: what to ask for.

    Returns:
        Whether it is promoted, and what each rule found; of the champion itself, only that it is.
    """
    if champion is not None and challenger.model_hash == champion.model_hash:
        kept = f"the challenger is the champion ({challenger.model_hash[:12]}): it is kept"
        finding = Finding(Rule.CHAMPION, "note", kept)
        return Decision(promoted=False, findings=(finding,), challenger=challenger.model_hash)
    findings = [_tasks(challenger), _splits(challenger)]
    for name in sorted(challenger.tasks):
        task = challenger.tasks[name]
        if not _all_finite(task):
            findings.append(Finding(Rule.FINITE, "fail", f"{name}: a metric is not finite: {task}"))
            continue
        findings += [_residual(name, task, rules), _baseline(name, task, rules), *_calibration(name, task, rules)]
    findings += _against_champion(challenger, champion, rules)
    promoted = all(finding.verdict != "fail" for finding in findings)
    return Decision(promoted, tuple(findings), challenger.model_hash)


def _all_finite(task: TaskMetrics) -> bool:
    return all(math.isfinite(value) for value in (task.psnr_db, task.residual_hu, task.baseline_psnr_db))


def _finding(rule: Rule, text: str, *, passed: bool) -> Finding:
    return Finding(rule, "pass" if passed else "fail", text)


def _unless_required(rule: Rule, text: str, rules: Rules) -> Finding:
    return Finding(rule, "fail" if rule in rules.required else "note", text)


def _tasks(challenger: Metrics) -> Finding:
    names = ", ".join(sorted(challenger.tasks)) or "no task: evaluate at least one"
    return _finding(Rule.TASKS, f"measured on {names}", passed=bool(challenger.tasks))


def _splits(challenger: Metrics) -> Finding:
    count = challenger.shared_patients
    return _finding(Rule.SPLITS, f"{count or 'no'} patients in more than one split", passed=count == 0)


def _residual(name: str, task: TaskMetrics, rules: Rules) -> Finding:
    text = f"{name}: largest residual {task.residual_hu:.3f} HU, allowed is under {rules.max_residual_hu:g} HU"
    return _finding(Rule.RESIDUAL, text, passed=task.residual_hu < rules.max_residual_hu)


def _baseline(name: str, task: TaskMetrics, rules: Rules) -> Finding:
    gain = task.psnr_db - task.baseline_psnr_db
    text = (
        f"{name}: {task.psnr_db:.2f} dB, {gain:+.2f} dB against {task.baseline} ({task.baseline_psnr_db:.2f} dB), "
        f"asked for is {rules.baseline_margin_db:+g} dB"
    )
    if gain >= rules.baseline_margin_db:
        return Finding(Rule.BASELINE, "pass", text)
    return _unless_required(Rule.BASELINE, f"{text}: not better than the baseline", rules)


def _calibration(name: str, task: TaskMetrics, rules: Rules) -> list[Finding]:
    if task.coverage_90 is None:
        return []
    low, high = rules.coverage_90
    text = (
        f"{name}: the 90 % interval holds {100 * task.coverage_90:.1f} % of the truth, asked for is "
        f"{100 * low:g} to {100 * high:g} %"
    )
    if task.correlation is not None:
        text += f"; spread and error correlate with {task.correlation:.2f}"
    if task.sample_noise_ratio is not None:
        text += f"; a sample has {task.sample_noise_ratio:.2f} of the truth's noise"
    if low <= task.coverage_90 <= high:
        return [Finding(Rule.CALIBRATION, "pass", text)]
    return [_unless_required(Rule.CALIBRATION, f"{text}: not calibrated", rules)]


def _against_champion(challenger: Metrics, champion: Metrics | None, rules: Rules) -> list[Finding]:
    if champion is None:
        return [Finding(Rule.CHAMPION, "note", "there is no champion yet")]
    if challenger.test_set_hash != champion.test_set_hash:
        text = (
            f"the champion was measured on test set {champion.test_set_hash[:12]}, the challenger on "
            f"{challenger.test_set_hash[:12]}: evaluate the champion on the same test set first"
        )
        return [Finding(Rule.CHAMPION, "fail", text)]
    if sorted(challenger.tasks) != sorted(champion.tasks):
        text = f"the champion was measured on {sorted(champion.tasks)}, the challenger on {sorted(challenger.tasks)}"
        return [Finding(Rule.CHAMPION, "fail", text)]
    finite = [name for name in sorted(champion.tasks) if _all_finite(challenger.tasks[name])]
    return [_no_worse(name, challenger.tasks[name], champion.tasks[name], rules) for name in finite]


def _no_worse(name: str, challenger: TaskMetrics, champion: TaskMetrics, rules: Rules) -> Finding:
    """Not worse by more than the margin, with 95 % confidence over the cases of the test set.

    A single case has no interval: then its difference decides.

    Args:
        name: of the task.
        challenger: what was measured of it on the task.
        champion: the same of the champion.
        rules: with the margin.

    Returns:
        The finding, passed or not.
    """
    pairs = {case: psnr - champion.psnr_db_by_case[case] for case, psnr in challenger.psnr_db_by_case.items()}
    interval = bootstrap_mean(list(pairs.values()), seed=rules.seed)
    low = interval.mean if interval.low is None else interval.low
    spread = "" if interval.high is None else f" [{low:+.2f}, {interval.high:+.2f}]"
    text = (
        f"{name}: {interval.mean:+.2f}{spread} dB against the champion ({champion.psnr_db:.2f} dB) on "
        f"{len(pairs)} cases, allowed is {-rules.champion_margin_db:+g} dB at the lower end"
    )
    return _finding(Rule.CHAMPION, text, passed=low >= -rules.champion_margin_db)
