"""The pointer moves in one step, back as well as forward, and what was judged stays known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ctinterp_dagster import champion
from ctinterp_dagster.champion import JUDGED, Challenger, Registry, card, model_files, model_hash, trained_models
from ctinterp_dagster.decision import Decision, Finding, Metrics, Rule, TaskMetrics
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout


def promoted(registry: Registry, trained: Path, weights: str) -> Challenger:
    """A model that was trained, judged and promoted."""
    (trained / "a").mkdir(parents=True, exist_ok=True)
    (trained / "a" / "model.safetensors").write_text(weights)
    before, hash_ = registry.champion, model_hash(model_files(trained))
    judged = Challenger(
        model_hash=hash_,
        number=len(registry.challengers),
        against=before.model_hash if before else None,
        decision=Decision(promoted=True, findings=(), challenger=hash_),
        metrics=Metrics(hash_, "2", {}, shared_patients=0),
        seen={"case": "1"},
        data={},
        rolled_back="",
    )
    registry.keep_files(judged.model_hash, model_files(trained))
    registry.record(judged)
    registry.point_at(judged.model_hash)
    return judged


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "promote")


def test_rolling_back_makes_the_champion_before_it_the_champion(registry: Registry, tmp_path: Path) -> None:
    first, second = (promoted(registry, tmp_path / "train", text) for text in ("one", "two"))
    assert registry.champion == second
    assert registry.roll_back("blurs vessels") == first
    assert registry.champion == first
    assert registry.get(second.model_hash).rolled_back == "blurs vessels"
    assert (registry.files(first.model_hash) / "a" / "model.safetensors").read_text() == "one"


def test_a_champion_that_was_rolled_back_can_be_asked_for_by_its_hash(registry: Registry, tmp_path: Path) -> None:
    _, second = (promoted(registry, tmp_path / "train", text) for text in ("one", "two"))
    registry.roll_back("a mistake")
    for _ in range(2):
        assert registry.roll_back("it was the test set", to=second.name) == second
    assert registry.champion == second
    assert registry.get(second.model_hash).rolled_back == ""


def test_the_first_champion_has_nothing_to_roll_back_to(registry: Registry, tmp_path: Path) -> None:
    only = promoted(registry, tmp_path / "train", "one")
    with pytest.raises(MissingInputError, match="there is no earlier champion to go back to"):
        registry.roll_back("reason")
    assert registry.champion == only


def test_rolling_back_to_an_unknown_model_is_refused(registry: Registry, tmp_path: Path) -> None:
    promoted(registry, tmp_path / "train", "one")
    with pytest.raises(MissingInputError, match="0 of a champion that begins with 'zzz'"):
        registry.roll_back("reason", to="zzz")


def test_a_roll_back_that_is_interrupted_leaves_a_champion_and_can_be_done_again(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (promoted(registry, tmp_path / "train", text) for text in ("one", "two"))
    written = []
    really = champion.write_json

    def killed_at_the_pointer(path: Path, record: object) -> None:
        written.append(path.name)
        if path.name == "champion.json":
            raise KeyboardInterrupt
        really(path, record)

    with monkeypatch.context() as patch:
        patch.setattr(champion, "write_json", killed_at_the_pointer)
        with pytest.raises(KeyboardInterrupt):
            registry.roll_back("reason")
    assert written[-1] == "champion.json"
    assert registry.champion.model_hash == second.model_hash
    assert registry.roll_back("reason") == first


def test_a_model_is_known_by_all_of_its_files_and_their_places(tmp_path: Path) -> None:
    for folder, name in (("x", "a"), ("y", "b")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "model.safetensors").write_text("the same")
    assert model_hash(model_files(tmp_path / "x")) != model_hash(model_files(tmp_path / "y"))


def test_the_model_is_what_both_stages_trained_and_its_hash_is_that_of_its_folder(layout: Layout) -> None:
    for stage in ("train", "latent"):
        with pytest.raises(MissingInputError, match=rf"{stage}/model\.safetensors is missing: run `dvc repro {stage}`"):
            trained_models(layout)
        layout.trained(stage).parent.mkdir(parents=True)
        layout.trained(stage).write_text(stage)
    registry, files = Registry(layout.promote), trained_models(layout)
    registry.keep_files(model_hash(files), files)
    kept = registry.files(model_hash(files))
    assert (kept / JUDGED).read_text() == "train"
    assert model_hash(model_files(kept)) == model_hash(files)


def test_a_record_is_json_that_a_person_can_read(registry: Registry, tmp_path: Path) -> None:
    judged = promoted(registry, tmp_path / "train", "one")
    record = json.loads((registry.folder / "challengers" / f"{judged.name}.json").read_text())
    assert record["seen"] == {"case": "1"}
    assert record["number"] == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("champion.json", "{", "champion.json is damaged: `dvc checkout --force "),
        ("champion.json", '{"hash": "1"}', r"champion.json is of another version \(model_hash: Field required\): "),
        ("champion.json", '["1"]', "champion.json is of another version "),
        ("champion.json", '{"model_hash": "never judged"}', r"names a model, but .*never judged\.json is missing: "),
        ("challengers/{name}.json", "not JSON", r"\w{16}\.json is damaged: "),
        (
            "challengers/{name}.json",
            '{"model_hash": "1"}',
            r"\w{16}\.json is of another version \(number: Field required\): ",
        ),
    ],
)
def test_a_damaged_or_old_registry_is_said_on_one_line(
    registry: Registry, tmp_path: Path, file: str, content: str, message: str
) -> None:
    name = promoted(registry, tmp_path / "train", "one").name
    (registry.folder / file.format(name=name)).write_text(content)
    with pytest.raises(MissingInputError, match=message) as raised:
        _ = registry.champion
    assert "\n" not in str(raised.value)


def test_a_champion_without_its_files_is_not_taken_for_none(registry: Registry, tmp_path: Path) -> None:
    only = promoted(registry, tmp_path / "train", "one")
    shutil.rmtree(registry.files(only.model_hash))
    with pytest.raises(MissingInputError, match=rf"names a model, but .*{only.name} is missing: `dvc"):
        _ = registry.champion


def test_the_card_tells_under_which_licences_the_scans_were(registry: Registry, tmp_path: Path) -> None:
    plain = promoted(registry, tmp_path / "train", "one")
    assert "licence" not in card(plain, "abc")
    assert "| 3 | CC BY 4.0: A et al. |" in card(replace(plain, sources={"CC BY 4.0: A et al.": 3}), "abc")


def test_a_record_of_before_has_no_sources(registry: Registry, tmp_path: Path) -> None:
    known = promoted(registry, tmp_path / "train", "one")
    path = registry.folder / "challengers" / f"{known.name}.json"
    record = json.loads(path.read_text())
    del record["sources"]
    path.write_text(json.dumps(record))
    assert registry.get(known.model_hash) == known


def test_reading_a_record_and_writing_it_again_changes_no_byte(registry: Registry, tmp_path: Path) -> None:
    plain = promoted(registry, tmp_path / "train", "one")
    findings = (Finding(Rule.CALIBRATION, "note", "82 % of the truth"), Finding(Rule.CHAMPION, "pass", "no worse"))
    tasks = {"box-x5": TaskMetrics({"a": 30.1234568}, 0.25, "cubic", 29.0, coverage_90=0.82)}
    judged = replace(
        plain, decision=replace(plain.decision, findings=findings), metrics=replace(plain.metrics, tasks=tasks)
    )
    registry.record(judged)
    path = registry.folder / "challengers" / f"{judged.name}.json"
    before = path.read_bytes()
    assert registry.get(judged.model_hash) == judged
    registry.record(registry.get(judged.model_hash))
    assert path.read_bytes() == before
    finding = {"rule": "calibration", "text": "82 % of the truth", "verdict": "note"}
    assert json.loads(before)["decision"]["findings"][0] == finding
