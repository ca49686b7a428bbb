"""A watch that is killed at random moments while series arrive: nothing is lost, and nothing sent twice.

`python -m tests.pacs.kills 100 FOLDER dicomweb`, or dimse, in a network namespace, with an empty folder.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ctinterp_dagster.pacs import connect
from ctinterp_dagster.pacs.settings import DicomWeb, Dimse, WatchRule
from ctinterp_dagster.pacs.watch import Watch
from ctinterp_dagster.pacs.watch_state import WatchState
from ctinterp_dagster.scan.io import read_scan, write_result
from tests.pacs.builders import thick_series
from tests.pacs.orthanc import DICOM, WEB, orthanc, rest, stored

SERVERS = {
    "dicomweb": DicomWeb(protocol="dicomweb", url=WEB),
    "dimse": Dimse(protocol="dimse", host="127.0.0.1", port=DICOM, aet="ORTHANC", calling_aet="CTINTERP"),
}
SLICES, THIN = 6, 5  # thick slices a series, thin ones a thick one
PATIENCE_S = 600  # for the last watch, whose work takes as long as the machine is busy
RULE = WatchRule(
    source="archive", description="thick*", min_thickness_mm=3, days=36500, interval_s=0.1, quiet_s=0.3,
    action="restore",
)  # fmt: skip


def stand_in(thick: Path, thin: Path) -> None:
    """Each slice five times: what a restoration leaves, without the time of one."""
    scan = read_scan(thick)
    volume = scan.volume
    hu = np.repeat(volume.hu, THIN, axis=0)
    write_result(volume.with_slices(hu, -0.4, volume.spacing_mm[0] / THIN), thin, scan, "stand-in", as_dicom=True)


def watch(folder: Path, protocol: str) -> None:
    """Look for ever."""
    one = Watch(
        archive=connect("archive", SERVERS[protocol]),
        rule=RULE,
        state=WatchState.open(folder / "state.sqlite"),
        folder=folder / "series",
        restore=stand_in,
        add=lambda _: None,
        tell=lambda said: print(said, flush=True),
        key=b"key",
    )
    while True:
        one.look()
        time.sleep(RULE.interval_s)


def kill_watches(folder: Path, kills: int, protocol: str) -> tuple[int, int, int]:
    """Start a watch and kill it, again and again, while series come slice by slice; then let one end its work.

    Returns:
        series that came; results that lie complete in the study of their series; images that came more than once.
    """
    chance, archive = random.Random(0), connect("archive", SERVERS[protocol])
    state = folder / "watch"
    state.mkdir()
    waiting = [
        file for n in range(max(kills // 2, 3)) for file in thick_series(folder / "scanner", n + 1, count=SLICES)
    ]
    count = len(waiting) // SLICES
    with (folder / "watch.log").open("w") as log:
        command = [sys.executable, "-m", "tests.pacs.kills", "watch", str(state), protocol]
        for k in range(kills):
            process = subprocess.Popen(command, stdout=log, stderr=log)
            end = time.monotonic() + chance.uniform(0.8, 2.5)
            while time.monotonic() < end:
                burst = chance.randint(1, 2 * SLICES)
                if chance.random() < len(waiting) / (kills - k) / SLICES and waiting:
                    archive.send(waiting[:burst])
                    del waiting[:burst]
                time.sleep(0.1)
            process.kill()
            process.wait()
        archive.send(waiting)
        process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE_S
        while _whole_results() < count and process.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(2)  # for what would be sent twice
        process.kill()
        process.wait()
    return count, _whole_results(), sum(times > 1 for times in stored().values())


def _whole_results() -> int:
    """How many results of whole series the archive has all images of."""
    series = [rest(f"series/{uid}") for study in rest("studies?expand") for uid in study["Series"]]
    results = [s for s in series if s["MainDicomTags"].get("Manufacturer") == "ctinterp"]
    return sum(len(result["Instances"]) == SLICES * THIN for result in results)


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(Path(sys.argv[2]), sys.argv[3])
    with orthanc(Path(sys.argv[2])):
        came, restored, twice = kill_watches(Path(sys.argv[2]), int(sys.argv[1]), sys.argv[3])
    print(f"{sys.argv[1]} kills over {sys.argv[3]}, {came} series, {restored} whole results, {twice} images sent twice")
