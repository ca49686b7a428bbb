"""Asset checks that stand before promotion, and the gate's findings as checks of `promote`."""

from collections.abc import Iterator

import dagster as dg

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import read_csv, read_json

RULES = {
    "tasks": "It was measured on the test set.",
    "splits": "No patient is in two splits.",
    "finite": "Every metric is a finite number.",
    "residual": "Thickening the estimate again gives the measured scan.",
    "baseline": "It is better than the best classical method (noted, or asked for: promote.require_baseline).",
    "champion": "With 95 % confidence it is not worse than the champion by more than the margin, case by case.",
    "rolled_back": "It was not taken back by a person.",
}


def build_gate_checks(layout: Layout) -> list[dg.AssetChecksDefinition]:
    """The checks of `ingest` and `promote`; thresholds of metrics are in dvc.yaml, beside the stages that make them."""

    @dg.asset_check(
        asset="ingest", blocking=True, description="No patient is in two splits: the test set stays unseen."
    )
    def no_patient_in_two_splits() -> dg.AssetCheckResult:
        splits: dict[str, set[str]] = {}
        for row in read_csv(layout.ingest / "cases.csv"):
            splits.setdefault(row["patient"], set()).add(row["split"])
        shared = sum(len(found) > 1 for found in splits.values())
        return dg.AssetCheckResult(passed=shared == 0, metadata={"patients": len(splits), "in_two_splits": shared})

    @dg.multi_asset_check(
        name="gate", specs=[dg.AssetCheckSpec(rule, asset="promote", description=text) for rule, text in RULES.items()]
    )
    def gate() -> Iterator[dg.AssetCheckResult]:
        findings = read_json(layout.report("promote") / "decision.json")["findings"]
        for rule in RULES:
            own = [finding for finding in findings if finding["rule"] == rule]
            yield dg.AssetCheckResult(
                check_name=rule,
                asset_key=dg.AssetKey("promote"),
                passed=all(finding["verdict"] != "fail" for finding in own),
                severity=dg.AssetCheckSeverity.WARN,  # a challenger that is refused is no fault
                description="; ".join(finding["text"] for finding in own) or "nothing to say",
            )

    return [no_patient_in_two_splits, gate]
