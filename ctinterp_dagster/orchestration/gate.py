"""Asset checks that stand before promotion, and the gate's findings as checks of `promote`."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from ctinterp_dagster.decision import Decision, Rule, count_shared_patients, read_record
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import read_csv


def build_gate_checks(layout: Layout) -> list[dg.AssetChecksDefinition]:
    """The checks of `ingest` and `promote`; thresholds of metrics are in dvc.yaml, beside the stages that make them."""

    @dg.asset_check(
        asset="ingest", blocking=True, description="No patient is in two splits: the test set stays unseen."
    )
    def no_patient_in_two_splits() -> dg.AssetCheckResult:
        rows = read_csv(layout.ingest / "cases.csv")
        shared = count_shared_patients((row["patient"], row["split"]) for row in rows)
        patients = len({row["patient"] for row in rows})
        return dg.AssetCheckResult(passed=shared == 0, metadata={"patients": patients, "in_two_splits": shared})

    @dg.asset_check(asset="ingest", description="Every scan is fit: none is in quarantine.")
    def no_scan_in_quarantine() -> dg.AssetCheckResult:
        refused = Counter(row["reason"] for row in read_csv(layout.ingest / "quarantine.csv"))
        fit = len(read_csv(layout.ingest / "cases.csv"))
        return dg.AssetCheckResult(
            passed=not refused,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{fit} fit, {refused.total()} in quarantine",
            metadata={"fit": fit, "in quarantine": refused.total(), **dict(sorted(refused.items()))},
        )

    @dg.multi_asset_check(
        name="gate",
        specs=[dg.AssetCheckSpec(rule.value, asset="promote", description=rule.asks) for rule in Rule],
    )
    def gate() -> Iterator[dg.AssetCheckResult]:
        findings = read_record(Decision, layout.report("promote") / "decision.json").findings
        for rule in Rule:
            own = [finding for finding in findings if finding.rule == rule]
            yield dg.AssetCheckResult(
                check_name=rule.value,
                asset_key=dg.AssetKey("promote"),
                passed=all(finding.verdict != "fail" for finding in own),
                severity=dg.AssetCheckSeverity.WARN,  # a challenger that is refused is no fault
                description="; ".join(finding.text for finding in own) or "nothing to say",
            )

    return [no_patient_in_two_splits, no_scan_in_quarantine, gate]
