from dataclasses import replace

import pytest

from ctinterp_dagster.decision import Decision, Metrics, TaskMetrics
from ctinterp_dagster.evaluation.gates import Rules, decide

RULES = Rules(
    max_residual_hu=0.5,
    baseline_margin_db=0.1,
    champion_margin_db=0.05,
    coverage_90=(0.8, 0.97),
    required=("baseline", "calibration"),
    seed=1,
)
TASK = TaskMetrics(
    {"a": 29.0, "b": 30.0, "c": 31.0},
    residual_hu=0.02,
    baseline="tv_projected",
    baseline_psnr_db=29.0,
    coverage_90=0.9,
)
GOOD = Metrics(model_hash="a" * 64, test_set_hash="t" * 64, tasks={"box-x5": TASK}, shared_patients=0)
CHAMPION = replace(GOOD, model_hash="c" * 64)


def challenger(*, gain_db: float = 0.0, **changes: float) -> Metrics:
    """A challenger that is better than the champion by so much in every case."""
    by_case = {case: psnr + gain_db for case, psnr in TASK.psnr_db_by_case.items()}
    return replace(GOOD, tasks={"box-x5": replace(TASK, psnr_db_by_case=by_case, **changes)})


def failed(decision: Decision) -> list[str]:
    return [finding.rule for finding in decision.findings if finding.verdict == "fail"]


def reasons(decision: Decision) -> list[str]:
    return [f"{finding.verdict}: {finding.text}" for finding in decision.findings]


def test_the_first_good_model_is_promoted() -> None:
    decision = decide(GOOD, None, RULES)
    assert decision.promoted
    assert "note: there is no champion yet" in reasons(decision)


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"residual_hu": 0.5}, ["residual"]),
        ({"baseline_psnr_db": 29.95}, ["baseline"]),
        ({"gain_db": -0.1}, ["champion"]),
        ({"coverage_90": 0.999}, ["calibration"]),
        ({"coverage_90": 0.79}, ["calibration"]),
        ({"gain_db": float("nan")}, ["finite"]),
        ({"residual_hu": float("inf")}, ["finite"]),
        ({"gain_db": -2.0, "residual_hu": 2.0}, ["residual", "baseline", "champion"]),
    ],
)
def test_each_rule_refuses_on_its_own(changes: dict[str, float], rules: list[str]) -> None:
    decision = decide(challenger(**changes), CHAMPION, RULES)
    assert not decision.promoted
    assert failed(decision) == rules


def test_a_slightly_worse_challenger_within_the_margin_is_promoted() -> None:
    assert decide(challenger(gain_db=-0.04), CHAMPION, RULES).promoted


def test_a_baseline_that_is_not_required_is_noted() -> None:
    rules = replace(RULES, required=("calibration",))
    decision = decide(challenger(baseline_psnr_db=31.0), CHAMPION, rules)
    assert decision.promoted
    assert any(reason.startswith("note: box-x5") and "not better" in reason for reason in reasons(decision))


def test_a_patient_in_two_splits_refuses() -> None:
    assert failed(decide(replace(GOOD, shared_patients=2), None, RULES)) == ["splits"]


def test_another_test_set_refuses() -> None:
    decision = decide(replace(GOOD, test_set_hash="u" * 64), CHAMPION, RULES)
    assert failed(decision) == ["champion"]
    assert "evaluate the champion on the same test set" in reasons(decision)[-1]


def test_other_tasks_than_the_champions_refuse() -> None:
    assert failed(decide(GOOD, replace(CHAMPION, tasks={"box-x4": TASK}), RULES)) == ["champion"]


def test_a_model_that_was_not_measured_is_refused() -> None:
    assert failed(decide(replace(GOOD, tasks={}), None, RULES)) == ["tasks"]


def test_one_bad_task_outweighs_a_good_one() -> None:
    tasks = {"box-x5": TASK, "gaussian-x5": replace(TASK, residual_hu=0.7)}
    assert failed(decide(replace(GOOD, tasks=tasks), None, RULES)) == ["residual"]


def test_the_champion_itself_is_kept_and_said_to_be() -> None:
    decision = decide(challenger(residual_hu=9.0), GOOD, RULES)
    assert not decision.promoted
    assert reasons(decision) == ["note: the challenger is the champion (aaaaaaaaaaaa): it is kept"]


def test_the_same_input_gives_the_same_decision() -> None:
    assert decide(GOOD, CHAMPION, RULES) == decide(GOOD, CHAMPION, RULES)


def test_the_challenger_is_compared_case_by_case_and_the_lower_bound_decides() -> None:
    by_case = {"a": 29.0 + 0.6, "b": 30.0 - 0.3, "c": 31.0 + 0.3}  # better on average, not in every case
    uncertain = replace(GOOD, tasks={"box-x5": replace(TASK, psnr_db_by_case=by_case)})
    decision = decide(uncertain, CHAMPION, replace(RULES, baseline_margin_db=0.0))
    assert failed(decision) == ["champion"]
    assert "+0.20 [-0.30, +0.60] dB against the champion (30.00 dB) on 3 cases" in reasons(decision)[-1]


def test_a_single_case_is_decided_by_its_difference() -> None:
    one = {"box-x5": replace(TASK, psnr_db_by_case={"a": 30.0})}
    assert decide(replace(GOOD, tasks=one), replace(CHAMPION, tasks=one), RULES).promoted


def test_calibration_that_is_not_required_is_noted_with_correlation_and_noise() -> None:
    told = challenger(coverage_90=0.999, correlation=0.4, sample_noise_ratio=1.3)
    decision = decide(told, CHAMPION, replace(RULES, required=("baseline",)))
    assert decision.promoted
    assert (
        "note: box-x5: the 90 % interval holds 99.9 % of the truth, asked for is 80 to 97 %; spread and error "
        "correlate with 0.40; a sample has 1.30 of the truth's noise: not calibrated"
    ) in reasons(decision)
