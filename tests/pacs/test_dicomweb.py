"""DICOMweb with what answers something else."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs import Query
from ctinterp_dagster.pacs.dicomweb import WebArchive
from ctinterp_dagster.pacs.settings import DicomWeb


class Answer(BaseHTTPRequestHandler):
    """Whatever the server holds as `answer`: a status or the body of a list."""

    def do_GET(self) -> None:
        answer: int | bytes = self.server.answer  # type: ignore[attr-defined]
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (500, r"refused to list series \(500\): look at its log"),
        (401, r"refused to list series \(401\): set user or token in the environment"),
        (404, r"refused to list series \(404\): is its url that of DICOMweb\?"),
        (b"<html>", r"did not list series \(JSONDecodeError\)"),
        (b'{"a": 1}', r"did not list series \(TypeError\)"),
        (b'[1, null, "x"]', r"did not list series \(AttributeError\)"),
        (b'[{"0020000E": {"vr": "UI", "Value": 3}}]', r"did not list series \(\w+\)"),
    ],
)
def test_an_answer_that_is_no_list_of_series_is_told_in_one_line(
    server: HTTPServer, answer: int | bytes, said: str
) -> None:
    server.answer = answer  # type: ignore[attr-defined]
    archive = WebArchive("away", DicomWeb(protocol="dicomweb", url=f"http://127.0.0.1:{server.server_port}"))
    with pytest.raises(PacsError, match=f"^server away {said}"):
        archive.find(Query())
