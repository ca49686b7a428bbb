"""Certificates are verified: an archive that nobody vouches for is not spoken to."""

import gc
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pynetdicom
import pytest

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs import Query, connect
from ctinterp_dagster.pacs.settings import DicomWeb, Dimse

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of localhost, by itself; with its key."""
    file = tmp_path / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(tmp_path / "ca.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "ca.pem").read_text())
    return file


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


@pytest.fixture
def web(context: ssl.SSLContext, tmp_path: Path) -> Iterator[int]:
    """A server that answers every query with no series."""
    (tmp_path / "series").write_text("[]")
    server = HTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dimse(context: ssl.SSLContext) -> Iterator[int]:
    """A server that answers every query with nothing."""
    entity = pynetdicom.AE("ARCHIVE")
    entity.add_supported_context(FIND)
    handlers = [(pynetdicom.evt.EVT_C_FIND, lambda _: iter(()))]
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=handlers)
    yield server.socket.getsockname()[1]
    server.shutdown()


def test_dicomweb_verifies_who_answers(web: int, tmp_path: Path) -> None:
    url = f"https://localhost:{web}"
    assert connect("a", DicomWeb(protocol="dicomweb", url=url, ca=tmp_path / "ca.pem")).find(Query()) == []
    with pytest.raises(PacsError, match="did not list series \\(SSLError\\)"):
        connect("a", DicomWeb(protocol="dicomweb", url=url)).find(Query())
    other = DicomWeb(protocol="dicomweb", url=f"https://127.0.0.1:{web}", ca=tmp_path / "ca.pem")
    with pytest.raises(PacsError, match="did not list series \\(SSLError\\)"):
        connect("a", other).find(Query())


# pynetdicom does not close the socket of a handshake that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dicom_networking_verifies_who_answers(dimse: int, tmp_path: Path) -> None:
    said = {"protocol": "dimse", "host": "localhost", "port": dimse, "aet": "ARCHIVE", "calling_aet": "CTINTERP"}
    assert connect("a", Dimse.model_validate(said | {"ca": tmp_path / "ca.pem"})).find(Query()) == []
    for wrong in ({"ca": tmp_path / "ca.pem", "host": "127.0.0.1"}, {}):
        with pytest.raises(PacsError, match="did not accept"):
            connect("a", Dimse.model_validate(said | wrong)).find(Query())
    gc.collect()  # the sockets, while their warnings are ignored
