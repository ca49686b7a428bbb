import json
from pathlib import Path

import pytest

from ctinterp_dagster import records
from ctinterp_dagster.decision import count_shared_patients
from ctinterp_dagster.errors import EvaluationError, MissingInputError
from ctinterp_dagster.records import (
    CaseFolder,
    file_hash,
    read_csv,
    read_json,
    whole_file,
    write_csv,
    write_json,
)


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def stopped() -> None:
        with whole_file(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_has_sorted_keys_and_nine_digits(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"b": 1 / 3, "a": [1, None]})
    assert (tmp_path / "r.json").read_text() == '{\n  "a": [\n    1,\n    null\n  ],\n  "b": 0.333333333\n}\n'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_record_with_a_number_that_is_not_finite_is_not_written(tmp_path: Path, number: float) -> None:
    with pytest.raises(EvaluationError, match=r"a\.b\[0\] is (nan|inf): a record holds real numbers only"):
        write_json(tmp_path / "r.json", {"a": {"b": [number]}})
    assert not list(tmp_path.iterdir())


def test_csv_round_trips(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"case": "a", "x": 0.1 + 0.2}], ["case", "x"])
    assert read_csv(tmp_path / "t.csv") == [{"case": "a", "x": "0.3"}]


def test_a_missing_record_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="dvc repro"):
        read_json(tmp_path / "none.json")
    with pytest.raises(MissingInputError, match="dvc repro"):
        read_csv(tmp_path / "none.csv")


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    first = file_hash(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    assert file_hash(tmp_path / "d") != first


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, paths: list[Path]) -> None:
        self.calls += 1
        for path in paths:
            path.write_text("made")


def test_a_case_is_made_once_and_again_when_anything_it_depends_on_changes(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("1")
    action = Counter()
    folder = CaseFolder(tmp_path / "out", {"factor": 5})
    assert folder.make("a", [source], ["x/a.txt"], action)
    assert not folder.make("a", [source], ["x/a.txt"], action)
    assert CaseFolder(tmp_path / "out", {"factor": 4}).make("a", [source], ["x/a.txt"], action)
    source.write_text("2")
    assert CaseFolder(tmp_path / "out", {"factor": 4}).make("a", [source], ["x/a.txt"], action)
    (tmp_path / "out" / "x" / "a.txt").write_text("corrupt")
    assert CaseFolder(tmp_path / "out", {"factor": 4}).make("a", [source], ["x/a.txt"], action)
    assert action.calls == 4
    assert (tmp_path / "out" / "x" / "a.txt").read_text() == "made"


def test_cases_that_are_gone_leave_no_files(tmp_path: Path) -> None:
    folder = CaseFolder(tmp_path / "out", {})
    for case in ("a", "b"):
        folder.make(case, [], [f"{case}/v.txt"], Counter())
    (tmp_path / "out" / "stray").write_text("")
    folder.keep_only(["b"])
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == [
        "out/.partial-stats.json",
        "out/b/v.txt",
        "out/manifest.json",
    ]
    assert list(json.loads((tmp_path / "out" / "manifest.json").read_text())) == ["b"]


def test_a_case_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(paths: list[Path]) -> None:
        paths[0].write_text("half")
        raise OSError("disk full")

    folder = CaseFolder(tmp_path / "out", {})
    with pytest.raises(OSError, match="disk full"):
        folder.make("a", [], ["a.txt"], fail)
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_cases_made_before_an_interruption_are_not_made_again(tmp_path: Path) -> None:
    for case in ("a", "b"):
        CaseFolder(tmp_path / "out", {}).make(case, [], [f"{case}.txt"], Counter())
    with (tmp_path / "out" / records.JOURNAL).open("a") as journal:
        journal.write('\n["c", {"key": "cut o')  # killed in the middle of a line
    again = Counter()
    folder = CaseFolder(tmp_path / "out", {})
    for case in ("a", "b", "c"):
        folder.make(case, [], [f"{case}.txt"], again)
    assert again.calls == 1
    folder.keep_only("abc")
    assert list(json.loads((tmp_path / "out" / "manifest.json").read_text())) == ["a", "b", "c"]
    assert not (tmp_path / "out" / records.JOURNAL).exists()


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SETTLED_NS", -1)  # as if the files were old
    read = []
    really = records.file_hash
    monkeypatch.setattr(records, "file_hash", lambda path: read.append(path.name) or really(path))
    (tmp_path / "in.txt").write_text("1")
    for expected in (["in.txt", "a.txt"], ["a.txt"], []):  # what was just made is read once more
        read.clear()
        folder = CaseFolder(tmp_path / "out", {})
        folder.make("a", [tmp_path / "in.txt"], ["a.txt"], Counter())
        folder.keep_only(["a"])
        assert read == expected
    (tmp_path / "in.txt").write_text("2")
    assert CaseFolder(tmp_path / "out", {}).make("a", [tmp_path / "in.txt"], ["a.txt"], Counter())


def test_a_file_that_has_just_changed_is_read_again(tmp_path: Path) -> None:
    hashes = records.FileHashes.load(tmp_path / "stats.json")
    (tmp_path / "a").write_text("1")
    hashes.of(tmp_path / "a")
    hashes.save()
    assert json.loads((tmp_path / "stats.json").read_text()) == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"a": 1')
    with pytest.raises(MissingInputError, match=r"half\.json is damaged .* remove it"):
        read_json(tmp_path / "half.json")
    (tmp_path / "noise.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(MissingInputError, match=r"noise\.json is damaged"):
        read_json(tmp_path / "noise.json")


def test_a_patient_in_two_splits_is_counted_once() -> None:
    cases = [("p1", "train"), ("p2", "train"), ("p2", "train"), ("p3", "val"), ("p2", "test"), ("p3", "test")]
    assert count_shared_patients(cases) == 2
    assert count_shared_patients([("p1", "train"), ("p1", "train"), ("p2", "test")]) == 0
