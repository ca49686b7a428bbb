"""`ctinterp scans add`: names, splits, and what is refused."""

from pathlib import Path

import pytest

from tests.cli.conftest import run


def test_scans_are_added_with_the_split_of_the_table_beside_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, project = tmp_path / "source", tmp_path / "project"
    source.mkdir()
    (project / "data" / "raw").mkdir(parents=True)
    (project / "params.yaml").write_text("")
    (source / "a.nii.gz").write_bytes(b"thin" * 9000)
    (source / "index.jsonl").write_text('{"file": "a.nii.gz", "patient": "anna", "use": "test"}\n')
    monkeypatch.chdir(project)
    for _ in range(2):
        assert run(monkeypatch, "scans", "add", source / "a.nii.gz") == 0
    assert "a.nii.gz is in data/raw already" in capsys.readouterr().out
    assert (project / "data" / "raw" / "scans.csv").read_text() == "file,patient,split\na.nii.gz,anna,test\n"
    assert sorted(p.name for p in (project / "data" / "raw").iterdir()) == ["a.nii.gz", "scans.csv"]


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty project, beside a folder for what is added."""
    (tmp_path / "project" / "data" / "raw").mkdir(parents=True)
    (tmp_path / "project" / "params.yaml").write_text("")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def named_alike(folder: Path) -> list[Path]:
    """Two different files of one name, each with a table of its own."""
    for name, split in (("A", "train"), ("B", "test")):
        (folder / name).mkdir()
        (folder / name / "ct.nii").write_bytes(name.encode() * 9000)
        (folder / name / "scans.csv").write_text(f"file,patient,split\nct.nii,patient-{name},{split}\n")
    return [folder / name / "ct.nii" for name in "AB"]


def raw_files(project: Path) -> list[str]:
    raw = project / "data" / "raw"
    return sorted(p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file())


LISTED = "file,patient,split\nA/ct.nii,patient-A,train\nB/ct.nii,patient-B,test\n"


def test_files_of_one_name_are_added_each_under_its_own_with_its_own_patient(
    monkeypatch: pytest.MonkeyPatch, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = named_alike(project.parent)
    for _ in range(2):
        assert run(monkeypatch, "scans", "add", first, second) == 0
    assert "0 added" in capsys.readouterr().out
    assert raw_files(project) == ["A/ct.nii", "B/ct.nii", "scans.csv"]
    assert (project / "data" / "raw" / "B" / "ct.nii").read_bytes() == second.read_bytes()
    assert (project / "data" / "raw" / "scans.csv").read_text() == LISTED


def test_another_file_of_a_name_that_is_taken_gets_its_folders_name_and_then_a_number(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    first, second = named_alike(project.parent)
    for content in (b"1", b"2", b"3", b"4"):
        first.write_bytes(content * 9000)
        assert run(monkeypatch, "scans", "add", first) == 0
    assert run(monkeypatch, "scans", "add", second) == 0
    above = project.parent.name
    expected = ["A-2/ct.nii", "A/ct.nii", "B/ct.nii", f"{above}/A/ct.nii", "ct.nii", "scans.csv"]
    assert raw_files(project) == sorted(expected)


def test_the_same_bytes_under_another_name_are_told_and_not_added(
    monkeypatch: pytest.MonkeyPatch, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = named_alike(project.parent)
    second.write_bytes(first.read_bytes())
    assert run(monkeypatch, "scans", "add", first, second) == 0
    assert "B/ct.nii is in data/raw already, as A/ct.nii: the same bytes, nothing added; " in capsys.readouterr().out
    assert raw_files(project) == ["A/ct.nii", "scans.csv"]
    assert "patient-B" not in (project / "data" / "raw" / "scans.csv").read_text()


@pytest.mark.parametrize("place", [".", "data/raw", "data/raw/A"])
def test_data_raw_is_never_added_to_itself(monkeypatch: pytest.MonkeyPatch, project: Path, place: str) -> None:
    assert run(monkeypatch, "scans", "add", named_alike(project.parent)[0].parent) == 0
    assert run(monkeypatch, "scans", "add", place) == 1
    assert raw_files(project) == ["A/ct.nii", "A/scans.csv", "scans.csv"]


def test_what_was_not_fetched_is_refused_by_name_and_the_others_are_added(
    monkeypatch: pytest.MonkeyPatch, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annex = project.parent / "study"
    (annex / ".git" / "annex" / "objects").mkdir(parents=True)
    (annex / "sub").mkdir()
    (annex / ".git" / "annex" / "objects" / "here").write_bytes(b"here" * 3000)
    (annex / "sub" / "here.nii").symlink_to("../.git/annex/objects/here")
    (annex / "sub" / "gone.nii").symlink_to("../.git/annex/objects/gone")
    (annex / "sub" / "unlocked.nii").write_text("/annex/objects/MD5E-s3--1.nii\n")
    (annex / "sub" / "out.nii").symlink_to("/etc/hostname")
    words = ["scans", "add", annex / "sub", annex / "sub" / "gone.nii", "typo.nii"]
    assert run(monkeypatch, *words) == 1
    said = capsys.readouterr().err
    for file, why in (("gone.nii", "is a link to nothing"), ("unlocked.nii", "`git annex get`"), ("out.nii", "out of")):
        assert f"{file} " in said
        assert why in said
    assert "typo.nii does not exist" in said
    assert raw_files(project) == ["sub/here.nii"]
    assert not (project / "data" / "raw" / "sub" / "here.nii").is_symlink()
    (annex / ".git" / "annex" / "objects" / "gone").write_bytes(b"gone" * 3000)
    assert run(monkeypatch, *words[:3]) == 1
    assert raw_files(project) == ["sub/gone.nii", "sub/here.nii"]


def test_files_that_are_no_scans_are_refused_by_name_and_the_others_are_added(
    monkeypatch: pytest.MonkeyPatch, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, other = named_alike(project.parent)[0], project.parent / "other"
    (other / "notes").mkdir(parents=True)
    (other / "mk.py").write_text("print()\n")
    (other / "notes" / "readme.txt").write_text("CT of 2026\n")
    (other / "scans.tar").write_bytes(b"ct" * 600)
    (other / "bad.mha").write_text("ObjectType = Image\n")
    (other / "pair").mkdir()
    (other / "pair" / "ct.raw").write_bytes(b"ct" * 1000)
    (other / "pair" / "ct.mhd").write_text("NDims = 3\nDimSize = 10 10 10\nElementDataFile = ct.raw\n")
    files = ["mk.py", "notes", "scans.tar", "bad.mha", "pair/ct.mhd", "pair/ct.raw"]
    assert run(monkeypatch, "scans", "add", *(other / name for name in files), scan) == 1
    out, err = capsys.readouterr()
    for name in ("mk.py", "notes", "scans.tar", "pair/ct.raw"):
        assert f"refused: {other / name} holds no scan: expected DICOM, NIfTI" in err
    assert f"refused: {other}/bad.mha: no readable file: its header has no end" in err
    assert f"refused: {other}/pair/ct.mhd has its values in ct.raw: expected both; add their folder" in err
    assert "1 added" in out
    assert raw_files(project) == ["ct.nii", "scans.csv"]
    assert run(monkeypatch, "scans", "add", other / "pair") == 0
    assert raw_files(project) == ["ct.nii", "pair/ct.mhd", "pair/ct.raw", "scans.csv"]
