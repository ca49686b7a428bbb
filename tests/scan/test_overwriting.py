"""A result replaces nothing that is there without being told to, and the scan that it was made of never."""

import os
from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.scan.io import check_overwriting, read_scan, write_result, write_volume

from .conftest import plain_volume


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, a file in two parts, a folder with a scan of two names, links and other files."""
    write_volume(plain_volume(np.zeros((3, 4, 5))), tmp_path / "scan.nii.gz")
    (tmp_path / "parts.mhd").write_text("NDims = 3\nDimSize = 1 1 1\nElementDataFile = parts.raw\n")
    (tmp_path / "parts.raw").write_bytes(b"12")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"1")
    (tmp_path / "link.nii.gz").symlink_to("scan.nii.gz")
    (tmp_path / "series-link").symlink_to("series")
    os.link(tmp_path / "scan.nii.gz", tmp_path / "hard.nii.gz")
    os.link(tmp_path / "series" / "1.dcm", tmp_path / "hard.json")
    (tmp_path / "other.nii.gz").write_bytes(b"other")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("scan.nii.gz", "scan.nii.gz"),
        ("scan.nii.gz", "series/../scan.nii.gz"),
        ("scan.nii.gz", "link.nii.gz"),
        ("link.nii.gz", "scan.nii.gz"),
        ("scan.nii.gz", "hard.nii.gz"),
        ("parts.mhd", "parts.raw"),
        ("series", "series"),
        ("series", "series/thin.nii.gz"),
        ("series", "series/new/thin.nii.gz"),
        ("series", "series-link/thin.nii.gz"),
        ("series-link", "series/thin.nii.gz"),
        ("series", "hard.json"),
        ("series/1.dcm", "series"),
        (".", "thin.nii.gz"),
    ],
)
def test_an_output_that_is_the_input_or_touches_it_is_always_refused(
    folder: Path,
    source: str,
    output: str,
    force: bool,  # noqa: FBT001 - a case
) -> None:
    with pytest.raises(ParamsError, match=f"^{output} is or touches the input {source}"):
        check_overwriting(source, [output, "new.nii.gz"], force=force)
    with pytest.raises(ParamsError, match="touches the input"):
        check_overwriting(folder / source, [folder / output], force=force)


def test_another_file_is_replaced_only_where_that_is_asked(folder: Path) -> None:
    with pytest.raises(ParamsError, match=r"^other\.nii\.gz exists: expected a new name; .* --force"):
        check_overwriting("scan.nii.gz", ["new.nii.gz", "other.nii.gz"])
    check_overwriting("scan.nii.gz", ["other.nii.gz", "empty", folder / "new.json"], force=True)
    check_overwriting("scan.nii.gz", ["empty", "new.nii.gz", "new.json", "none/new.nii.gz"])
    (folder / "lost").symlink_to("nowhere")
    with pytest.raises(ParamsError, match=r"^lost exists"):
        check_overwriting("scan.nii.gz", ["lost"])


@pytest.mark.parametrize(
    "outputs",
    [
        ["a.nii.gz", "a.nii.gz"],
        ["a.nii.gz", "b.nii.gz", "empty/../a.nii.gz"],
        ["a.nii.gz", "A.nii.gz"],
        ["empty", "empty/std.nii.gz"],
        ["thin", "thin"],
    ],
)
@pytest.mark.usefixtures("folder")
def test_the_outputs_of_one_run_are_apart(outputs: list[str]) -> None:
    with pytest.raises(ParamsError, match="are one place, or in each other"):
        check_overwriting("scan.nii.gz", outputs, force=True)


@pytest.mark.usefixtures("folder")
def test_an_input_that_is_not_there_is_said() -> None:
    with pytest.raises(MissingInputError, match=r"^none\.nii does not exist"):
        check_overwriting("none.nii", ["a.nii"])


def test_the_writer_itself_never_replaces_the_scan(folder: Path) -> None:
    before = (folder / "scan.nii.gz").read_bytes()
    scan = read_scan("scan.nii.gz")
    for name in ("scan.nii.gz", "link.nii.gz", "hard.nii.gz"):
        with pytest.raises(ParamsError, match="is the source"):
            write_result(scan.volume, name, scan, "ctinterp")
    assert (folder / "scan.nii.gz").read_bytes() == before
    write_result(scan.volume.with_hu(scan.volume.hu + 1), "other.nii.gz", scan, "ctinterp")
    assert read_scan("other.nii.gz").volume.hu.max() == 1
