"""Challenger against champion on tables of scores, without training: who is promoted, what is kept and repeated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ctinterp_dagster.champion import JUDGED, Registry
from ctinterp_dagster.decision import Metrics, TaskMetrics
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline import promote
from ctinterp_dagster.pipeline.common.cases import Case, write_cases
from ctinterp_dagster.records import write_json
from tests.conftest import smoke_params

CASES = ("a", "b", "c")


@pytest.fixture
def params(layout: Layout) -> Params:
    """Three test cases and a training one, ingested."""
    write_cases(layout.ingest / "cases.csv", [Case(c, c, "test") for c in CASES] + [Case("t", "t", "train")])
    write_json(layout.ingest / "manifest.json", {c: {"outputs": {f"{c}.nii": c}} for c in (*CASES, "t")})
    write_json(layout.thicken / "manifest.json", {})
    return smoke_params(layout.root)


def judge(layout: Layout, params: Params, weights: str, *psnr_db: float, residual_hu: float = 0.0) -> dict[str, object]:
    """Train and score a model, by hand, and promote it or not."""
    for stage in ("train", "latent"):
        layout.trained(stage).parent.mkdir(exist_ok=True)
        layout.trained(stage).write_text(weights)
    task = TaskMetrics(dict(zip(CASES, psnr_db, strict=True)), residual_hu, "cubic", 29.0)
    write_json(layout.report("evaluate") / "judged.json", {"box-x5": task})
    promote.run(params, layout)
    return json.loads((layout.report("promote") / "decision.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_better_challenger_is_promoted_and_the_old_champion_is_kept(layout: Layout, params: Params) -> None:
    registry = Registry(layout.promote)
    assert judge(layout, params, "one", 30.0, 31.0, 32.0)["promoted"]
    first = registry.champion
    assert judge(layout, params, "two", 30.1, 31.1, 32.1)["promoted"]
    second = registry.champion
    assert (first.against, second.against) == (None, first.model_hash)
    assert (registry.files(first.model_hash) / JUDGED).read_text() == "one"
    assert set(second.seen) == {*CASES, "t"}


def test_a_worse_challenger_is_recorded_and_the_pointer_stays(layout: Layout, params: Params) -> None:
    registry = Registry(layout.promote)
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    pointer = (layout.promote / "champion.json").read_bytes()
    decision = judge(layout, params, "two", 30.5, 30.5, 32.0)
    assert not decision["promoted"]
    assert "+0.00 [-0.50, +0.50] dB against the champion" in str(decision["findings"])
    assert (layout.promote / "champion.json").read_bytes() == pointer
    assert [c.decision.promoted for c in registry.challengers] == [True, False]
    assert not registry.files(registry.challengers[1].model_hash).exists()


@pytest.mark.parametrize("scores", [(30.1, 31.1, 32.1), (29.0, 29.0, 29.0)])
def test_deciding_again_changes_no_byte(scores: tuple[float, ...], layout: Layout, params: Params) -> None:
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    decision = judge(layout, params, "two", *scores)
    before = files(layout.promote)
    assert judge(layout, params, "two", *scores) == decision
    assert files(layout.promote) == before


def test_a_champion_that_was_rolled_back_is_not_promoted_again(layout: Layout, params: Params) -> None:
    registry = Registry(layout.promote)
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    judge(layout, params, "two", 30.1, 31.1, 32.1)
    first = registry.roll_back("blurs vessels")
    decision = judge(layout, params, "two", 30.1, 31.1, 32.1)
    assert not decision["promoted"]
    assert decision["findings"][-1] == {  # type: ignore[index]
        "rule": "rolled_back",
        "text": "the challenger was the champion and was rolled back: blurs vessels",
        "verdict": "fail",
    }
    assert registry.champion == first
    assert judge(layout, params, "three", 30.2, 31.2, 32.2)["promoted"]
    assert registry.champion.against == first.model_hash


@pytest.mark.parametrize("step", ["keep_files", "record", "point_at"])
def test_a_promotion_that_is_interrupted_leaves_the_old_champion_whole(
    step: str, layout: Layout, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(layout.promote)
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    first = registry.champion

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, step, killed)
        with pytest.raises(KeyboardInterrupt):
            judge(layout, params, "two", 30.1, 31.1, 32.1)
    assert registry.champion == first
    assert judge(layout, params, "two", 30.1, 31.1, 32.1)["promoted"]
    assert (registry.files(registry.champion.model_hash) / JUDGED).read_text() == "two"


def test_a_champion_of_another_test_set_is_scored_on_the_present_one(
    layout: Layout, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    write_json(layout.ingest / "manifest.json", {c: {"outputs": {f"{c}.nii": f"new {c}"}} for c in (*CASES, "t")})
    asked = []

    def scored_again(champion: Metrics, challenger: Metrics, *_: object) -> Metrics:
        asked.append(champion)
        return replace(champion, tasks=challenger.tasks, test_set_hash=challenger.test_set_hash)

    monkeypatch.setattr(promote, "rescored", scored_again)
    assert judge(layout, params, "two", 20.0, 21.0, 22.0)["promoted"]
    assert len(asked) == 1


def test_a_champion_of_other_tasks_is_scored_on_the_present_ones(
    layout: Layout, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a champion from before a task was added is; the challenger has to be no worse on the new task as well."""
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    registry = Registry(layout.promote)
    first = registry.champion
    older = {"box x5": first.metrics.tasks["box-x5"]}
    registry.record(replace(first, metrics=replace(first.metrics, tasks=older)))
    better = (33.0, 34.0, 35.0)

    def scored_again(champion: Metrics, challenger: Metrics, *_: object) -> Metrics:
        assert set(champion.tasks) == set(older)
        psnr = dict(zip(CASES, better, strict=True))
        return replace(champion, tasks={n: replace(t, psnr_db_by_case=psnr) for n, t in challenger.tasks.items()})

    monkeypatch.setattr(promote, "rescored", scored_again)
    decision = judge(layout, params, "two", 32.9, 33.9, 34.9)
    assert not decision["promoted"]
    assert "box-x5: -0.10 [-0.10, -0.10] dB against the champion" in str(decision["findings"])
    assert judge(layout, params, "three", *better)["promoted"]


def test_a_champion_of_phantoms_judges_no_model_of_scans(layout: Layout, params: Params) -> None:
    registry = Registry(layout.promote)
    judge(layout, params, "one", 40.0, 41.0, 42.0)
    assert "the test set is of built-in phantoms" not in str(registry.champion.decision)
    scans = {c: f"scan-{c}" for c in (*CASES, "t")}
    splits = {c: "train" if c == "t" else "test" for c in scans}
    write_cases(layout.ingest / "cases.csv", [Case(s, s, splits[c]) for c, s in scans.items()])
    write_json(layout.ingest / "manifest.json", {s: {"outputs": {f"{s}.nii": s}} for s in scans.values()})
    decision = judge(layout, params, "two", 20.0, 21.0, 22.0)
    assert decision["promoted"]
    assert "was trained on 4 other scans, none of which is here: it judges no model of these" in str(decision)
    assert registry.champion.against is None
    with pytest.raises(MissingInputError, match="there is no earlier champion to go back to"):
        registry.roll_back("why")


def test_a_test_set_of_phantoms_is_told_in_the_decision(layout: Layout, params: Params) -> None:
    write_cases(layout.ingest / "cases.csv", [Case(c, c, "test", phantom=True) for c in CASES])
    assert judge(layout, params, "one", 30.0, 31.0, 32.0)["findings"][0] == {
        "rule": "tasks",
        "text": "the test set is of built-in phantoms, which stand in until scans are added: no figure is of a patient",
        "verdict": "note",
    }


def test_after_a_reset_the_next_model_is_the_first_and_the_old_one_stays_refused(
    layout: Layout, params: Params
) -> None:
    registry = Registry(layout.promote)
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    registry.reset("of a wrong test set")
    assert registry.champion is None
    assert not judge(layout, params, "one", 30.0, 31.0, 32.0)["promoted"]
    assert judge(layout, params, "two", 20.0, 21.0, 22.0)["promoted"]
    with pytest.raises(MissingInputError, match="there is no champion to take back"):
        Registry(layout.promote / "none").reset("why")


@pytest.mark.parametrize("change", [{"psnr_db_by_case": {"a": "high"}}, {"residual_hu": None}])
def test_scores_of_another_version_are_refused(layout: Layout, params: Params, change: dict[str, object]) -> None:
    judge(layout, params, "one", 30.0, 31.0, 32.0)
    path = layout.report("evaluate") / "judged.json"
    record = json.loads(path.read_text())
    write_json(path, {"box-x5": record["box-x5"] | change})
    with pytest.raises(MissingInputError, match=rf"judged\.json is of another version \(box-x5\.{next(iter(change))}"):
        promote.run(params, layout)
