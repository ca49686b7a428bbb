"""`ctinterp view`: a page in a file, or on this machine only."""

import socket
import threading
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster.cli.actions import view
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.io.output import write_result
from tests.cli.conftest import run
from tests.orchestration.server import free_port
from tests.phantoms import phantom


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    thin = phantom(0, shape_zyx=(40, 32, 32), spacing_mm=(1.0, 3.0, 3.0), noise_hu=10.0)
    thick = thin.with_slices(thin.hu.reshape(8, 5, 32, 32).mean(1), 2.0, 5.0)
    write_volume(thick, tmp_path / "thick.nii.gz")
    write_volume(thin, tmp_path / "thin.nii.gz")
    return tmp_path / "thick.nii.gz", tmp_path / "thin.nii.gz"


def test_the_page_is_written_as_one_file(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    html = files[0].parent / "look.html"
    assert run(monkeypatch, "view", *files, "--html", html) == 0
    assert "opens in any browser" in capsys.readouterr().out
    assert "default-src 'none'" in html.read_text()


def test_a_standard_deviation_of_dicom_is_shown_and_is_no_scan(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    scan, std = read_scan(files[1]), files[0].parent / "std"
    write_result(scan.volume.with_hu(np.abs(scan.volume.hu) / 50), std, scan, "ctinterp", quantity="std")
    html = files[0].parent / "look.html"
    assert run(monkeypatch, "view", *files, std, "--html", html) == 0
    assert run(monkeypatch, "view", files[0], std, "--html", html, "--force") == 1
    assert "standard deviations: expected a scan; give the series that it is of" in capsys.readouterr().err


def test_files_of_two_runs_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "view", *files, files[0], "--html", files[0].parent / "look.html") == 1
    assert capsys.readouterr().err.startswith("error: the standard deviation has")
    assert not (files[0].parent / "look.html").exists()


def test_scans_that_do_not_belong_together_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    html, elsewhere = files[0].parent / "look.html", files[0].parent / "elsewhere.nii"
    thin = read_scan(files[1]).volume
    write_volume(replace(thin, origin_mm=(500.0, 0.0, 0.0)), elsewhere)
    assert run(monkeypatch, "view", files[1], files[0], "--html", html) == 1
    assert "slices every 1 mm, the thin one every 5 mm: give the thick one first" in capsys.readouterr().err
    assert run(monkeypatch, "view", files[0], elsewhere, "--html", html) == 1
    assert "give a scan and what was made of it" in capsys.readouterr().err
    assert not html.exists()


def test_one_of_several_series_is_shown(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = files[0].parent / "thick"
    folder.mkdir()
    for name in ("a.nii", "b.nii"):
        write_volume(read_scan(files[0]).volume, folder / name)
    words = "view", folder, files[1], "--html", files[0].parent / "look.html"
    assert run(monkeypatch, *words) == 1
    assert "choose one (--series)" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--series", "a.nii") == 0


def test_a_page_replaces_no_scan_and_no_file_that_is_there(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before, other = files[1].read_bytes(), files[0].parent / "notes.html"
    other.write_text("mine")
    folder, link = files[0].parent / "pages.html", files[0].parent / "thin.html"
    folder.mkdir()
    link.hardlink_to(files[1])
    assert run(monkeypatch, "view", *files, "--html", link, "--force") == 1
    assert run(monkeypatch, "view", *files, "--html", other) == 1
    assert run(monkeypatch, "view", *files, "--html", folder, "--force") == 1
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 3
    assert (files[1].read_bytes(), other.read_text()) == (before, "mine")
    assert run(monkeypatch, "view", *files, "--html", other, "--force") == 0


def test_a_port_in_use_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(monkeypatch, "view", *files, "--port", port, "--no-open") == 1
    assert f"error: port {port} cannot be used" in capsys.readouterr().err


def test_the_page_is_given_to_this_machine_by_its_own_names_only() -> None:
    port = free_port()
    threading.Thread(target=view.serve, args=(b"<p>", port), kwargs={"opens": False}, daemon=True).start()
    for host, path, status in (
        ("127.0.0.1", "/", 200),
        ("localhost", "/", 200),
        ("elsewhere.example", "/", 404),
        ("127.0.0.1", "/etc/passwd", 404),
    ):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(100):
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.1)
        connection.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"<p>" if status == 200 else b"")
