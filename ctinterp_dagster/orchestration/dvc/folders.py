"""What DVC said of folders, kept for as long as nothing in them moves: DVC asks of each file whether it knows it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import Any

from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

HashLook = Callable[[], tuple[Meta, HashInfo]]


class Folders:
    """A memory of folders, in a file.

    A folder is the same while its files have the names, sizes, times and inodes that they had, by which DVC itself
    tells whether to hash a file, and while each `.dvcignore` above it is the same.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.kept: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            self.kept = json.loads(file.read_text(encoding="utf-8"))

    def look(self, path: str, hash_name: str, look: HashLook) -> tuple[Meta, HashInfo]:
        """Size and hash of a file or folder of this machine.

        Args:
            path: absolute.
            hash_name: how DVC hashes it.
            look: DVC's own look at it, for a file and for a folder that moved.

        Returns:
            As `look` gives them.
        """
        state = _state(Path(path))
        if state is None:
            return look()
        name = f"{hash_name}:{path}"
        known = self.kept.get(name, {})
        if known.get("state") != state:
            meta, found = look()
            if _state(Path(path)) != state:  # it moved meanwhile
                return meta, found
            known = {"state": state, "meta": meta.to_dict(), "hash": found.to_dict()}
        self.seen[name] = known
        return Meta.from_dict(known["meta"]), HashInfo.from_dict(known["hash"])

    def keep(self) -> None:
        """Write what was seen, whole or not at all; a disk that does not let it only costs the next look its time."""
        if self.seen == self.kept:
            return
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}-{get_ident()}")
        with suppress(OSError):
            beside.write_text(json.dumps(self.seen), encoding="utf-8")
            beside.replace(self.file)
            return
        beside.unlink(missing_ok=True)


def _state(folder: Path) -> str | None:
    """A hash of what tells that a folder is the same; None of a file, or where that cannot be told."""
    try:
        if not folder.is_dir():
            return None
        ignores = [file for above in folder.parents if (file := above / ".dvcignore").is_file()]
        state = [(file, _token(file.stat())) for file in ignores], list(_files(str(folder)))
    except OSError:
        return None
    return hashlib.sha256(repr(state).encode()).hexdigest()


def _files(folder: str) -> Iterator[tuple[str, str]]:
    """Path and token of each file below a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            else:
                yield entry.path, _token(entry.stat())


def _token(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
