"""DICOM networking with an archive that refuses, warns, breaks off, or gives a part only."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs import Images, Query, Series
from ctinterp_dagster.pacs.dimse import DimseArchive
from ctinterp_dagster.pacs.settings import Dimse
from ctinterp_dagster.pacs.transfer import fetch
from tests.pacs.builders import thick_series

Serve = Callable[..., DimseArchive]
SERIES = Series("1.2.840.7.1", "1.2.840.7.1.1", "", "", "", "", "CT", "", "")
IMAGES = Images(frozenset(map(str, range(6))), 5.0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an archive on a free port of this machine; `store` gives the status of each image, `give` is C-GET."""
    servers = []

    def start(**handlers: Callable[[evt.Event], object]) -> DimseArchive:
        entity = AE("ORTHANC")
        for model in (StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet):
            entity.add_supported_context(model)
        entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
        events = {"store": evt.EVT_C_STORE, "give": evt.EVT_C_GET, "find": evt.EVT_C_FIND}
        own = [(events[name], handler) for name, handler in handlers.items()]
        servers.append(entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=own))
        port = servers[-1].socket.getsockname()[1]
        return DimseArchive(
            "away", Dimse(protocol="dimse", host="127.0.0.1", port=port, aet="ORTHANC", calling_aet="CTINTERP")
        )

    yield start
    for server in servers:
        server.shutdown()


def giving(files: list[Path], *, after: int, then: int | None) -> Callable[[evt.Event], Iterator[object]]:
    """C-GET of the first images and then a status; None breaks the association off."""

    def give(event: evt.Event) -> Iterator[object]:
        yield len(files)
        for file in files[:after]:
            yield 0xFF00, pydicom.dcmread(file)
        if then is None:
            event.assoc.abort()
            return
        yield then, Dataset()

    return give


@pytest.mark.parametrize(
    ("after", "then", "said"),
    [
        (3, None, r"did not give images \(it ended the association\)"),
        (3, 0xC001, r"did not give images \(status 0xC001\)"),
        (3, 0xB000, "3 images came of 6"),
        (3, 0x0000, "3 images came of 6"),
    ],
)
def test_of_a_series_that_comes_in_part_nothing_is_left(
    serve: Serve, tmp_path: Path, after: int, then: int | None, said: str
) -> None:
    archive = serve(give=giving(thick_series(tmp_path / "sent", 1), after=after, then=then))
    with pytest.raises(PacsError, match=said):
        fetch(archive, SERIES, IMAGES, tmp_path / "came")
    assert [path.name for path in tmp_path.iterdir()] == ["sent"]


def test_a_series_that_comes_whole_with_a_warning_is_taken(serve: Serve, tmp_path: Path) -> None:
    archive = serve(give=giving(thick_series(tmp_path / "sent", 1), after=6, then=0xB000))
    fetch(archive, SERIES, IMAGES, tmp_path / "came")
    assert len(list((tmp_path / "came").iterdir())) == 6


def test_a_disk_that_is_full_is_not_told_of_the_archive(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = serve(give=giving(thick_series(tmp_path / "sent", 1), after=6, then=0x0000))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        fetch(archive, SERIES, IMAGES, tmp_path / "came")
    assert [path.name for path in tmp_path.iterdir()] == ["sent"]


def test_an_image_that_is_stored_with_a_warning_is_stored_and_one_that_is_refused_ends_the_sending(
    serve: Serve, tmp_path: Path
) -> None:
    files, came = thick_series(tmp_path / "sent", 1), list[str]()

    def store(status: int) -> Callable[[evt.Event], int]:
        def keep(event: evt.Event) -> int:
            came.append(event.request.AffectedSOPInstanceUID)
            return status

        return keep

    for warning in (0xB000, 0xB006, 0xB007):
        came.clear()
        serve(store=store(warning)).send(files)
        assert len(came) == 6
    with pytest.raises(PacsError, match=r"refused image 1 of 6 \(status 0xA700\)"):
        serve(store=store(0xA700)).send(files)


def test_an_archive_that_does_not_list_is_asked_whether_it_knows_the_title(serve: Serve) -> None:
    def find(event: evt.Event) -> Iterator[tuple[int, None]]:
        event.assoc.abort()
        yield 0xFF00, None

    with pytest.raises(PacsError, match=r"it ended the association\): does it know the title 'CTINTERP'\?"):
        serve(find=find).find(Query())
