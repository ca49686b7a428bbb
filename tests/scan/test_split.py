"""Patients, not scans, are split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctinterp_dagster.errors import ParamsError, TrainingError
from ctinterp_dagster.scan.split import assert_no_leak, split_of, split_patients, thin_parts

FROZEN = ["train", "val", "test", "test", "train", "test", "train", "train"]
SHARES = {"val_fraction": 0.15, "test_fraction": 0.25}


def test_shares_come_out_as_asked() -> None:
    splits = [split_of(f"patient-{k}", **SHARES) for k in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.25, abs=0.02)
    assert splits.count("val") / 4000 == pytest.approx(0.15, abs=0.02)


def test_splits_are_frozen_across_versions() -> None:
    assert [split_of(f"p{k}", **SHARES) for k in range(8)] == FROZEN


@given(patient=st.text(min_size=1), more=st.floats(0, 0.3))
def test_a_test_patient_stays_one_when_the_other_shares_change(patient: str, more: float) -> None:
    before = split_of(patient, val_fraction=0.1, test_fraction=0.2)
    after = split_of(patient, val_fraction=0.1 + more, test_fraction=0.2)
    assert (before == "test") == (after == "test")


def test_another_salt_is_another_draw() -> None:
    first, second = ([split_of(f"p{k}", **SHARES, salt=s) for k in range(50)] for s in "ab")
    assert first != second


def test_a_patient_without_an_id_is_refused() -> None:
    with pytest.raises(ParamsError, match="patient id is empty"):
        split_of("", **SHARES)


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0.2), (0.2, -0.1), (0.5, 0.5), (0.9, 0.3)])
def test_impossible_shares_are_refused(val: float, test: float) -> None:
    with pytest.raises(ParamsError, match="a sum below 1"):
        split_of("p", val_fraction=val, test_fraction=test)


def test_a_patient_in_two_splits_is_an_error_that_names_cases_only() -> None:
    rows = [
        {"case": "a", "patient": "secret", "split": "train"},
        {"case": "b", "patient": "other", "split": "test"},
        {"case": "c", "patient": "secret", "split": "train"},
    ]
    assert_no_leak(rows)
    with pytest.raises(TrainingError, match="case a in train, case d in test") as caught:
        assert_no_leak([*rows, {"case": "d", "patient": "secret", "split": "test"}])
    assert "secret" not in str(caught.value)


@given(count=st.integers(3, 12), seed=st.integers(0, 99))
def test_three_patients_are_enough_for_three_parts(count: int, seed: int) -> None:
    patients = [f"{seed}-{k}" for k in range(count)]
    splits = split_patients(dict.fromkeys(patients), **SHARES)
    assert set(splits.values()) == {"train", "val", "test"}
    assert split_patients(dict.fromkeys(reversed(patients)), **SHARES) == splits
    alone = {patient: split_of(patient, **SHARES) for patient in patients}
    assert sum(splits[p] != alone[p] for p in patients) == 3 - len(set(alone.values()))


@given(seed=st.integers(0, 99))
def test_two_patients_train_and_test(seed: int) -> None:
    assert set(split_patients({f"{seed}-a": None, f"{seed}-b": None}, **SHARES).values()) == {"train", "test"}


def test_of_many_patients_none_is_moved_and_a_given_split_is_kept() -> None:
    patients = [f"p{k}" for k in range(50)]
    assert split_patients(dict.fromkeys(patients), **SHARES) == {p: split_of(p, **SHARES) for p in patients}
    assert split_patients({"a": "test", "b": "test"}, **SHARES) == {"a": "test", "b": "test"}
    assert split_patients({"a": "test", "b": "val", "c": None}, **SHARES)["c"] == "train"


def test_a_part_without_a_share_is_left_empty_and_thin_parts_are_told() -> None:
    splits = split_patients(dict.fromkeys(["a", "b", "c"]), val_fraction=0.0, test_fraction=0.3)
    assert sorted(set(splits.values())) == ["test", "train"]
    assert thin_parts(splits)["val"] == 0
    assert thin_parts({"a": "train", "b": "train", "c": "test"}) == {"val": 0, "test": 1}
