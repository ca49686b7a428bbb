"""A disk that fills up, and permissions that go away."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkout import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="mounts and capabilities are root's")]

WITHOUT_OVERRIDE = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")  # root, as if not root
PATIENCE_S, WAITS = 600, 124  # DVC 3.67.1 waits for room where its own database of links has none


def kib(folder: Path) -> int:
    return int(subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True).stdout.split()[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory, whose size can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_stops_in_one_line_and_with_room_the_run_ends_the_same(
    undisturbed: Checkout,
    small_disk: Path,
    same: Callable[[Checkout], None],
    one_line: Callable[[str], str],
    champion_is_whole: Callable[[Checkout], bool],
) -> None:
    checkout = Checkout.clone(small_disk / "ctinterp")
    begin, end = kib(checkout.root), kib(undisturbed.root)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        size = f"remount,size={begin + int(share * (end - begin))}k"
        subprocess.run(["mount", "-o", size, small_disk], check=True)
        code, shown = checkout.attempt("timeout", str(PATIENCE_S), "dvc", "repro")
        assert code != 0
        if code != WAITS:
            print(f"\n{share:.0%} of the room: {one_line(shown)}")
        champion_is_whole(checkout)
    subprocess.run(["mount", "-o", "remount,size=1g", small_disk], check=True)
    checkout.run("dvc", "repro")
    same(checkout)


@pytest.mark.parametrize("folder", ["data/thicken", "data/latent", "reports/evaluate", ".dvc/cache/files/md5"])
def test_a_folder_that_may_not_be_written_is_named_and_nothing_is_lost(
    finished: Checkout, same: Callable[[Checkout], None], one_line: Callable[[str], str], folder: str
) -> None:
    params = finished.root / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("factor: 5", "factor: 4"))
    closed = [p for p in (finished.root / folder, *(finished.root / folder).rglob("*")) if p.is_dir()]
    for path in closed:
        path.chmod(0o555)
    code, shown = replace(finished, prefix=WITHOUT_OVERRIDE).attempt("dvc", "repro")
    for path in closed:
        path.chmod(0o755)
    assert code != 0
    print(f"\n{folder}: {one_line(shown)}")
    assert "ermission denied" in one_line(shown)
    params.write_text(before)  # a run to the end would judge another challenger, which stays on record
    finished.run("dvc", "repro")
    same(finished)
