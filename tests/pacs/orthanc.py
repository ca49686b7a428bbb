"""An Orthanc of the test's own. It listens on all addresses, so it runs in a network namespace without any but lo."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
HTTP, DICOM, MOVE = 8042, 4242, 11112
WEB = f"http://127.0.0.1:{HTTP}/dicom-web"
LO_UP = "import fcntl,socket,struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH', b'lo', 0x41))"


def missing() -> str:
    """Why no Orthanc can be started here; empty where one can."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        return "needs Debian's orthanc and orthanc-dicomweb"
    alone = shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], check=False).returncode == 0
    return "" if alone else "needs network namespaces (unshare -rn)"


def in_namespace(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python where nothing but this machine's loopback can be reached."""
    script = f'{sys.executable} -c "{LO_UP}" && exec {sys.executable} "$@"'
    return subprocess.run(["unshare", "-rn", "sh", "-c", script, "sh", *arguments], text=True, check=False, **options)


@contextmanager
def orthanc(folder: Path, **changes: object) -> Iterator[None]:
    """Run an Orthanc with its storage in a folder."""
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    settings = {
        "StorageDirectory": str(store), "IndexDirectory": str(store), "HttpPort": HTTP, "DicomPort": DICOM,
        "DicomAet": "ORTHANC", "DicomCheckCalledAet": True, "RemoteAccessAllowed": False, "StableAge": 1,
        "AuthenticationEnabled": False, "DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True}, "OverwriteInstances": True,
        "DicomModalities": {"ct": ["CTINTERP", "127.0.0.1", MOVE]},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings | changes))
    with (folder / "orthanc.log").open("w") as log:
        server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for port in (HTTP, DICOM):
            while not _listens(port):
                assert server.poll() is None, (folder / "orthanc.log").read_text()
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rest(path: str) -> Any:
    """What Orthanc's own interface says."""
    return requests.get(f"http://127.0.0.1:{HTTP}/{path}", timeout=60).json()


def stored() -> dict[str, int]:
    """How often each SOP instance came, by Orthanc's journal; it is to overwrite instances."""
    counts: dict[str, int] = {}
    last, done = 0, False
    while not done:
        page = rest(f"changes?since={last}&limit=1000")
        for change in page["Changes"]:
            if change["ChangeType"] == "NewInstance":
                counts[change["ID"]] = counts.get(change["ID"], 0) + 1
        last, done = page["Last"], page["Done"]
    return counts
