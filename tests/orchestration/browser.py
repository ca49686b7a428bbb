"""Headless Chromium over the DevTools protocol: open a page, wait for what a person would read, take a picture."""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

from tests.orchestration.server import free_port


class Browser:
    """One page in a browser of its own."""

    def __init__(self, profile: Path) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not found:
            pytest.skip("no Chromium found: `apt-get install -y chromium`, then this test opens the pages")
        port = free_port()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [found, "--headless=new", *sandbox, "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--remote-debugging-port={port}", f"--user-data-dir={profile}", "--window-size=1440,900",
             "--force-device-scale-factor=1", "--enable-unsafe-swiftshader", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.connection = connect(self._page(port), max_size=None)
        self.socket = self.connection.__enter__()
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.__exit__(None, None, None)
        self.process.terminate()
        self.process.wait(30)

    def open(self, url: str, *texts: str, seconds: float = 90) -> None:
        """Go to a page and wait until it shows every text."""
        self.call("Page.navigate", url=url)
        self.wait(*texts, seconds=seconds)

    def wait(self, *texts: str, seconds: float = 90) -> None:
        """Wait until the page shows every text."""
        deadline, shown = time.monotonic() + seconds, ""
        while not all(text in shown for text in texts):
            lacking = [text for text in texts if text not in shown]
            assert time.monotonic() < deadline, f"the page does not show {lacking}, but:\n{shown[:3000]}"
            time.sleep(0.5)
            shown = self.read("document.body ? document.body.innerText : ''")

    def read(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def click(self, text: str) -> None:
        """Click on the innermost element that shows exactly this text."""
        all_ = "[...document.querySelectorAll('button,a,span,div')]"
        script = f"{all_}.filter(e => e.innerText?.trim() === '{text}').pop()"
        assert self.read(f"!!{script}"), f"nothing to click on says {text!r}"
        self.read(f"{script}.click()")

    def picture(self, path: Path) -> None:
        """Write what is seen as PNG."""
        time.sleep(2)  # drawn, and at rest
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something; its answer."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.sent:
                assert "error" not in answer, answer
                return dict(answer["result"])

    @staticmethod
    def _page(port: int) -> str:
        """The address of the first page's socket, once there is one."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                    pages = [page for page in json.load(answer) if page["type"] == "page"]
            except (OSError, urllib.error.URLError):
                pages = []
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            assert time.monotonic() < deadline, "Chromium did not start"
            time.sleep(0.2)
