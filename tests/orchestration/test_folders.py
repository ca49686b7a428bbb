"""DVC looks through a folder again exactly when something in it may have moved."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.output import Output

from ctinterp_dagster.orchestration.dvc import DvcProject

Shell = Callable[..., str]
Status = Callable[[DvcProject], set[str]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that DVC looks through from here on, as they come."""
    paths: list[str] = []
    really = Output._build

    def build(self: Output, odb: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        paths.append(Path(path).name)
        return really(self, odb, path, *args, **kwargs)

    monkeypatch.setattr(Output, "_build", build)
    return paths


@pytest.fixture
def parts(fresh: DvcProject, shell: Shell) -> DvcProject:
    """The toy project, whose first stage reads a tracked folder of three files."""
    root = fresh.root
    (root / "parts" / "more").mkdir(parents=True)
    for name in ("a", "b", "more/c"):
        (root / "parts" / name).write_text("12")
    text = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(text.replace("deps: [prepare.py,", "deps: [prepare.py, parts,"))
    shell(root, "dvc", "add", "-q", "parts")
    shell(root, "dvc", "repro", "-q", "prepare")
    os.utime(root / "dvc.lock", (0, 0))  # a lock that was just written would be read once more
    return fresh


def replace(root: Path) -> None:
    """Another file of the same size and time, under the same name."""
    old = root / "parts" / "a"
    new = root / "new"
    new.write_text("34")
    os.utime(new, ns=(0, old.stat().st_mtime_ns))
    new.rename(old)


def edit(root: Path) -> None:
    """Another time alone."""
    (root / "parts" / "a").write_text("34")
    os.utime(root / "parts" / "a", ns=(0, 0))


MOVES: dict[str, Callable[[Path], Any]] = {
    "a file more": lambda root: (root / "parts" / "more" / "d").write_text("12"),
    "a file less": lambda root: (root / "parts" / "more" / "c").unlink(),
    "another name": lambda root: (root / "parts" / "b").rename(root / "parts" / "e"),
    "another file under its name": replace,
    "another time": edit,
    "an ignored file": lambda root: (root / ".dvcignore").write_text("parts/b\n"),
    "no folder": lambda root: (root / "parts").rename(root / "elsewhere"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_folder_is_looked_through_again_after(
    move: str, parts: DvcProject, looks: list[str], dvc_changed: Status
) -> None:
    before = parts.read().stages["prepare"]
    assert not before.changed
    looks.clear()
    MOVES[move](parts.root)
    stage = parts.read().stages["prepare"]
    assert ("parts" in looks) == (parts.root / "parts").exists()
    assert stage.changed
    assert "prepare" in dvc_changed(parts)


def test_a_folder_that_did_not_move_is_not_looked_through_again(parts: DvcProject, looks: list[str]) -> None:
    first = parts.read()
    looks.clear()
    second = parts.read()
    assert "parts" not in looks
    assert (second.stages, second.sources) == (first.stages, first.sources)


def test_a_folder_that_moves_while_dvc_looks_is_looked_through_again(
    parts: DvcProject, looks: list[str], monkeypatch: pytest.MonkeyPatch, dvc_changed: Status
) -> None:
    watched = Output._build

    def build(self: Output, odb: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        found = watched(self, odb, path, *args, **kwargs)
        if Path(path).name == "parts":
            (parts.root / "parts" / "late").write_text("12")
        return found

    with monkeypatch.context() as during:
        during.setattr(Output, "_build", build)
        assert not parts.read().stages["prepare"].changed
    looks.clear()
    assert parts.read().stages["prepare"].changed
    assert looks.count("parts") == 1
    assert "prepare" in dvc_changed(parts)


@pytest.mark.parametrize("text", ["", "{", "\0"])
def test_a_memory_that_cannot_be_read_is_made_anew(
    text: str, parts: DvcProject, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    parts.read()
    (memory,) = (tmp_path / "site").rglob("dagster-folders.json")
    memory.write_text(text)
    looks.clear()
    parts.read()
    assert not parts.read().stages["prepare"].changed
    assert looks.count("parts") == 1


def test_a_disk_without_room_for_the_memory_only_costs_time(
    parts: DvcProject, looks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr(Path, "write_text", full)
        assert not parts.read().stages["prepare"].changed
    assert not parts.read().stages["prepare"].changed
    assert looks.count("parts") == 2
