"""Every command against a real archive, by both languages; run by test_orthanc.py in a network namespace."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from pydicom.uid import RLELossless

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs import Archive, Query, connect
from ctinterp_dagster.pacs.settings import DicomWeb, Dimse
from ctinterp_dagster.pacs.transfer import send
from ctinterp_dagster.scan.io import read_scan, write_result
from tests.pacs.builders import thick_series
from tests.pacs.kills import SERVERS as PROTOCOLS
from tests.pacs.kills import kill_watches, stand_in
from tests.pacs.orthanc import DICOM, MOVE, WEB, orthanc, rest, stored

DIMSE = {"protocol": "dimse", "host": "127.0.0.1", "port": DICOM, "aet": "ORTHANC", "calling_aet": "CTINTERP"}
SERVERS = {
    "web": DicomWeb(protocol="dicomweb", url=WEB),
    "get": Dimse.model_validate(DIMSE),
    "move": Dimse.model_validate(DIMSE | {"move_port": MOVE}),
}


@pytest.fixture(autouse=True)
def _server(tmp_path: Path) -> Iterator[None]:
    with orthanc(tmp_path / "orthanc"):
        yield


@pytest.fixture(params=list(SERVERS))
def archive(request: pytest.FixtureRequest) -> Archive:
    return connect(request.param, SERVERS[request.param])


def _ctinterp(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    servers = {"archive": {"protocol": "dicomweb", "url": WEB}}
    rule = {"source": "archive", "description": "thick*", "min_thickness_mm": 3, "days": 36500, "interval_s": 0.1,
            "quiet_s": 0, "action": "restore", "interpolate": ["--method", "cubic_projected", "--force"]}  # fmt: skip
    (folder / "pacs.yaml").write_text(yaml.safe_dump({"servers": servers, "watch": rule}))
    command = [sys.executable, "-c", "from ctinterp_dagster.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)


def _tags(series: str) -> dict[str, str]:
    return rest(f"series/{series}")["MainDicomTags"]


def test_a_series_is_found_by_what_is_known_of_it(archive: Archive, tmp_path: Path) -> None:
    archive.send(thick_series(tmp_path / "one", 1))
    archive.send(thick_series(tmp_path / "two", 2, StudyDate="20210101", PatientID="MRN-78", SeriesDescription="Lung"))
    found = {
        "1.2.840.7.1.1": [Query(patient="MRN-77"), Query(description="THICK*"), Query(date="20200101-20201231")],
        "1.2.840.7.2.1": [Query(study="1.2.840.7.2"), Query(series="1.2.840.7.2.1"), Query(date="20210101-")],
    }
    for uid, queries in found.items():
        assert [[series.uid for series in archive.find(query)] for query in queries] == [[uid]] * len(queries)
    for none in (Query(modality="MR"), Query(patient="MRN"), Query(description="thin*")):
        assert archive.find(none) == []
    first = archive.find(Query(series="1.2.840.7.1.1"))[0]
    assert (first.study, first.patient, first.date, first.maker) == ("1.2.840.7.1", "MRN-77", "20200304", "ACME")
    assert (len(archive.images(first).uids), archive.images(first).thickness_mm) == (6, 5)


@pytest.mark.parametrize("date", [None, ""])
def test_a_study_without_a_date_is_found_where_no_date_is_asked_for(
    archive: Archive, tmp_path: Path, date: str | None
) -> None:
    archive.send(thick_series(tmp_path / "one", 1, StudyDate=date))
    archive.send(thick_series(tmp_path / "two", 2))
    for query in (Query(patient="MRN-77"), Query(study="1.2.840.7.1"), Query()):
        assert "1.2.840.7.1.1" in [series.uid for series in archive.find(query)]
    assert [series.uid for series in archive.find(Query(date="none"))] == ["1.2.840.7.1.1"]
    assert [series.uid for series in archive.find(Query(date="20200101-"))] == ["1.2.840.7.2.1"]


def test_over_a_page_of_images_are_all_listed_and_fetched_as_they_were_sent(archive: Archive, tmp_path: Path) -> None:
    sent = thick_series(tmp_path / "sent", 1, count=120)
    connect("web", SERVERS["web"]).send(sent)
    (series,) = archive.find(Query())
    assert len(archive.images(series).uids) == 120
    (tmp_path / "back").mkdir()
    archive.fetch(series, tmp_path / "back")
    back = {d.SOPInstanceUID: d.PixelData for d in map(pydicom.dcmread, (tmp_path / "back").iterdir())}
    assert back == {d.SOPInstanceUID: d.PixelData for d in map(pydicom.dcmread, sent)}


def test_a_result_is_sent_once_and_lies_in_the_study_of_its_source(archive: Archive, tmp_path: Path) -> None:
    archive.send(thick_series(tmp_path / "thick", 1))
    stand_in(tmp_path / "thick", tmp_path / "thin")
    assert (send(archive, tmp_path / "thin"), send(archive, tmp_path / "thin")) == (30, 0)
    assert set(stored().values()) == {1}
    (study,) = rest("studies?expand")
    assert len(study["Series"]) == 2
    result = next(s for s in archive.find(Query()) if s.maker == "ctinterp")
    (tmp_path / "back").mkdir()
    archive.fetch(result, tmp_path / "back")
    back, made = read_scan(tmp_path / "back").volume, read_scan(tmp_path / "thin").volume
    np.testing.assert_array_equal(back.hu, made.hu)
    np.testing.assert_allclose(back.origin_mm, made.origin_mm, atol=1e-3)


@pytest.mark.parametrize("as_multiframe", [False, True])
@pytest.mark.parametrize("tags", [{"StudyInstanceUID": "1.2.0840.1"}, {"PatientID": "A" * 64 + "B" * 6}])
def test_a_result_with_identifiers_that_break_a_rule_lies_in_the_study_of_its_source(
    archive: Archive,
    tmp_path: Path,
    tags: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    as_multiframe: bool,  # noqa: FBT001 - a case
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    archive.send(thick_series(tmp_path / "thick", 1, **tags))
    (series,) = archive.find(Query())
    (tmp_path / "back").mkdir()
    archive.fetch(series, tmp_path / "back")
    scan = read_scan(tmp_path / "back")
    write_result(scan.volume, tmp_path / "thin", scan, "copy", as_dicom=True, as_multiframe=as_multiframe)
    assert send(archive, tmp_path / "thin") == (1 if as_multiframe else 6)
    assert (len(rest("patients")), len(rest("studies")), len(rest("series"))) == (1, 1, 2)


def test_identifiers_that_break_a_rule_are_asked_for_without_a_word(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as lenient:
        lenient.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
        lenient.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
        archive.send(thick_series(tmp_path / "thick", 1, StudyInstanceUID="n"))
    (series,) = archive.find(Query())  # warnings are errors in tests
    (tmp_path / "back").mkdir()
    archive.fetch(series, tmp_path / "back")
    assert len(archive.images(series).uids) == len(list((tmp_path / "back").iterdir())) == 6


def test_what_an_archive_refuses_is_told_with_what_to_look_at() -> None:
    with pytest.raises(PacsError, match=r"ended the association\): does it know the title 'NOBODY'"):
        connect("get", Dimse.model_validate(DIMSE | {"calling_aet": "NOBODY"})).find(Query())
    with pytest.raises(PacsError, match=r"refused to list series \(404\): is its url that of DICOMweb"):
        connect("web", DicomWeb(protocol="dicomweb", url=WEB + "/none")).find(Query())


def test_compressed_images_are_fetched_as_they_are_kept(archive: Archive, tmp_path: Path) -> None:
    files = thick_series(tmp_path / "thick", 1)
    before = read_scan(tmp_path / "thick").volume.hu
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    connect("web", SERVERS["web"]).send(files)
    (tmp_path / "back").mkdir()
    archive.fetch(archive.find(Query())[0], tmp_path / "back")
    kept = {pydicom.dcmread(file).file_meta.TransferSyntaxUID for file in (tmp_path / "back").iterdir()}
    assert kept == {RLELossless}
    np.testing.assert_array_equal(read_scan(tmp_path / "back").volume.hu, before)


def test_the_commands_restore_a_series_into_its_study(tmp_path: Path) -> None:
    connect("web", SERVERS["web"]).send(thick_series(tmp_path / "thick", 1))
    listed = _ctinterp(tmp_path, "pacs", "list", "--patient", "MRN-77", "--description", "thick*")
    assert "1.2.840.7.1.1\n" in listed.stdout
    assert "6 images  5 mm" in listed.stdout
    none = _ctinterp(tmp_path, "pacs", "list", "--patient", "MRN-77", "--min-thickness", "6")
    assert (none.stdout, none.stderr, none.returncode) == ("", "no CT series matches\n", 0)
    fetched = _ctinterp(tmp_path, "pacs", "fetch", "1.2.840.7.1.1", "-o", "fetched")
    assert fetched.stdout == "fetched: 6 images\n"
    options = ("--method", "cubic_projected", "--spacing", "1", "--force")
    restored = _ctinterp(tmp_path, "pacs", "restore", "1.2.840.7.1.1", *options)
    assert restored.stderr.splitlines()[0] == "restoring 6 images"
    (made,) = (s for s in map(_tags, rest("series")) if s["Manufacturer"] == "ctinterp")
    assert restored.stdout == f"30 images sent: series {made['SeriesNumber']}, {made['SeriesDescription']!r}\n"
    refused = _ctinterp(tmp_path, "pacs", "restore", "1.2.840.7.1.1", "--method", "none")
    assert "Invalid value for '--method'" in refused.stderr
    assert "restoring" not in refused.stderr  # before the archive is asked
    assert len(rest("studies")) == 1
    assert len(rest("series")) == 2
    refused = _ctinterp(tmp_path, "pacs", "send", "fetched")
    assert "fetched is no DICOM result of ctinterp: nothing else is sent" in refused.stderr
    assert "no CT series 1.2.3" in _ctinterp(tmp_path, "pacs", "fetch", "1.2.3", "-o", "none").stderr


def test_a_watch_restores_what_is_new_and_not_what_it_made_itself(tmp_path: Path) -> None:
    web = connect("web", SERVERS["web"])
    web.send(thick_series(tmp_path / "thick", 1))
    first, second = (_ctinterp(tmp_path, "pacs", "watch", "--state", "state", "--once") for _ in range(2))
    assert "6 images, sent: 30 images" in first.stdout
    assert len(second.stdout.splitlines()) == 1
    web.send(thick_series(tmp_path / "late", 1, count=8)[6:])
    assert "8 images, sent: 40 images" in _ctinterp(tmp_path, "pacs", "watch", "--state", "state", "--once").stdout
    assert len(rest("series")) == 3
    logged = first.stdout + first.stderr
    assert not [word for word in ("Doe", "MRN-77", "Thick", "1.2.840") if word in logged]
    assert list((tmp_path / "state" / "series").iterdir()) == []


def test_a_series_goes_into_the_project_under_a_pseudonym(tmp_path: Path) -> None:
    connect("web", SERVERS["web"]).send(thick_series(tmp_path / "thick", 1))
    elsewhere = _ctinterp(tmp_path, "pacs", "fetch", "1.2.840.7.1.1", "--to-project")
    assert "params.yaml is not here: run in the project's root" in elsewhere.stderr
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    for _ in range(2):
        added = _ctinterp(tmp_path, "pacs", "fetch", "1.2.840.7.1.1", "--to-project")
        assert (added.returncode, added.stdout) == (0, "data/raw: it holds the series\n"), added.stderr
    (folder,) = (path for path in (tmp_path / "data" / "raw").iterdir() if path.is_dir())
    assert folder.name.startswith("s-")
    assert len(list(folder.iterdir())) == 6


# pynetdicom does not close the socket of a connection that was refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_that_is_not_there_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for server in (
        DicomWeb(protocol="dicomweb", url="http://127.0.0.1:1/dicom-web"),
        Dimse.model_validate(DIMSE | {"port": 1}),
        Dimse.model_validate(DIMSE | {"aet": "ANOTHER"}),
    ):
        with pytest.raises(PacsError, match=r"^server away did not .*\?$"):
            connect("away", server).find(Query())
    assert caplog.text == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_watch_that_is_killed_loses_nothing_and_sends_nothing_twice(tmp_path: Path, protocol: str) -> None:
    start = time.monotonic()
    came, restored, twice = kill_watches(tmp_path, kills=6, protocol=protocol)
    assert (restored, twice) == (came, 0), f"{time.monotonic() - start:.0f} s"
