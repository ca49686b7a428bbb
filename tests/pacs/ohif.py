"""A DICOM series in OHIF beside an Orthanc: three planes through its volume, and no warning at the series.

`npm pack @ohif/app@3.12.10 && tar xzf ohif-app-3.12.10.tgz`, then `python -m tests.pacs.ohif package/dist SERIES
PICTURE`. It needs Debian's orthanc, orthanc-dicomweb and chromium, and runs in a network namespace.
"""

import sys
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pydicom
import requests

from ctinterp_dagster.pacs import connect
from ctinterp_dagster.pacs.settings import DicomWeb
from tests.orchestration.browser import Browser
from tests.pacs.orthanc import HTTP, WEB, in_namespace, orthanc

PORT = 3000
CONFIG = """window.config = {
  routerBasename: '/', extensions: [], modes: [], defaultDataSourceName: 'archive',
  investigationalUseDialog: {option: 'never'},
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      name: 'archive', friendlyName: 'archive', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true,
    },
  }],
};"""
PAGE = "http://127.0.0.1:{port}/viewer?StudyInstanceUIDs={study}&SeriesInstanceUIDs={series}&hangingProtocolId=mpr"
WARNINGS = "document.querySelectorAll('[data-cy=study-browser-thumbnail] #status-warning').length"


class Pages(SimpleHTTPRequestHandler):
    """OHIF's files, and the archive at the same origin."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        if path.startswith("dicom-web"):
            asked = {"Accept": self.headers.get("Accept", "*/*"), "Host": f"127.0.0.1:{PORT}"}
            answer = requests.get(f"http://127.0.0.1:{HTTP}{self.path}", headers=asked, timeout=60)
            self._answer(answer.content, answer.headers.get("Content-Type", ""), answer.status_code)
        elif path == "app-config.js":
            self._answer(CONFIG.encode(), "text/javascript")
        else:
            if not Path(self.directory, path).is_file():
                self.path = "/index.html"
            super().do_GET()

    def _answer(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def look(dist: Path, series: Path, picture: Path) -> int:
    """Open a series in three planes, and write what is seen as PNG; how many warnings stand at the series."""
    files = sorted(series.iterdir())
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    server = ThreadingHTTPServer(("127.0.0.1", PORT), partial(Pages, directory=str(dist)))
    Thread(target=server.serve_forever, daemon=True).start()
    url = PAGE.format(port=PORT, study=first.StudyInstanceUID, series=first.SeriesInstanceUID)
    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder) / "orthanc"):
        connect("archive", DicomWeb(protocol="dicomweb", url=WEB)).send(files)
        with Browser(Path(folder) / "profile") as browser:
            middle = [f"{n // 2 + 1}/{n}" for n in (len(files), first.Rows, first.Columns)]
            browser.open(url, "Skip all", *middle, seconds=240)
            browser.click("Skip all")  # of a tour
            time.sleep(10)  # until software has drawn the volume
            browser.picture(picture)
            return int(browser.read(WARNINGS))


if __name__ == "__main__":
    if sys.argv[1] == "inside":
        print(f"{look(*map(Path, sys.argv[2:]))} warnings")
    else:
        sys.exit(in_namespace(["-m", "tests.pacs.ohif", "inside", *sys.argv[1:]]).returncode)
