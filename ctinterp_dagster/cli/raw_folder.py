"""Copying scans into data/raw: each under a name of its own, none twice, none by halves."""

import filecmp
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from ctinterp_dagster.errors import ParamsError, ScanError, UnreadableScanError
from ctinterp_dagster.records import read_csv

TABLES = ("index.jsonl", "scans.csv")
# What stands in the place of a file that was not fetched.
POINTERS = {b"/annex/objects/": "git annex get", b"version https://git-lfs": "git lfs pull"}
# Where git-annex and DVC keep files by their content: links of an added folder are followed there, and within it.
STORES = re.compile(r"/annex/objects/|/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")
HEAD = 4096  # bytes; those of two DICOM images differ here


class Addition(NamedTuple):
    """What became of a scan that was to be added.

    Attributes:
        lines: what the user should know; what was refused begins with `refused`.
        added: whether it was.
    """

    lines: list[str]
    added: bool = False


def _head(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(HEAD)


@dataclass
class Added:
    """The files that data/raw holds, found by their content.

    Attributes:
        raw: data/raw.
        unread: files by size of which nothing was read yet.
        known: files by size and beginning.
    """

    raw: Path
    unread: dict[int, list[Path]] = field(init=False)
    known: dict[tuple[int, bytes], list[Path]] = field(init=False)

    def __post_init__(self) -> None:
        """List the files."""
        self.unread, self.known = defaultdict(list), defaultdict(list)
        for file in _files(self.raw):
            self.unread[file.stat().st_size].append(file)

    def twin(self, file: Path) -> Path | None:
        """A file of the same bytes."""
        size = file.stat().st_size
        for other in self.unread.pop(size, []):
            self.known[size, _head(other)].append(other)
        same = self.known.get((size, _head(file)), [])
        return next((other for other in same if filecmp.cmp(file, other, shallow=False)), None)

    def name_of(self, path: Path) -> str | None:
        """The name in data/raw of a file, or of a folder each of whose files is there; None if it is not there."""
        if path.is_file():
            twin = self.twin(path)
            return twin.relative_to(self.raw).as_posix() if twin else None
        name = ""
        for file in _files(path):
            if _refusal(file, path):
                continue
            twin = self.twin(file)
            if twin is None:
                return None
            name = name or twin.relative_to(self.raw).as_posix().removesuffix(file.relative_to(path).as_posix())
        return name.rstrip("/") or None

    def is_free(self, name: str, path: Path) -> bool:
        """Whether a file or folder can get the name; a folder can where it was added before, with fewer files."""
        target = self.raw / name
        if target.is_dir() and path.is_dir():
            pairs = [(file, path / file.relative_to(target)) for file in _files(target)]
            return all(new.is_file() and filecmp.cmp(file, new, shallow=False) for file, new in pairs)
        return not target.exists() and not any(folder.is_file() for folder in target.parents)

    def add(self, path: Path, name: str) -> None:
        """Copy a file or folder but for what `refusals` names; an interrupted copy is never taken for a scan."""
        target = self.raw / name
        partial, before = (target.with_name(f".{word}-{target.name}") for word in ("partial", "before"))
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in (partial, before):
            shutil.rmtree(left, ignore_errors=True)
        if path.is_dir():
            shutil.copytree(
                path,
                partial,
                ignore=lambda folder, names: {n for n in names if n[0] == "." or _refusal(Path(folder, n), path)},
            )
            if target.exists():
                target.replace(before)
        else:
            shutil.copyfile(path, partial)
        partial.replace(target)
        shutil.rmtree(before, ignore_errors=True)
        for file in [target] if target.is_file() else _files(target):
            self.unread[file.stat().st_size].append(file)


def refusals(path: Path) -> list[ScanError]:
    """Why a file, or members of a folder, cannot be copied."""
    if not path.exists() and not path.is_symlink():
        return [UnreadableScanError(f"{path} does not exist: expected a scan file or a folder of scans")]
    if path.is_file() or not path.exists():
        members = [path]
    else:
        members = [p for p in sorted(path.rglob("*")) if not _is_hidden(p, path) and (p.is_symlink() or p.is_file())]
    why = [_refusal(member, path) for member in members]
    if not members or (None not in why and path.is_dir()):
        why.append(UnreadableScanError(f"{path} holds no file to copy: expected scans"))
    return [error for error in why if error]


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _files(folder: Path) -> Iterator[Path]:
    """The files that ingest would see, in sorted order."""
    return (file for file in sorted(folder.rglob("*")) if file.is_file() and not _is_hidden(file, folder))


def _refusal(path: Path, root: Path) -> ScanError | None:
    """Why a file is not copied: it is not here, or a link of the folder `root` that leads out of it."""
    if not path.exists():
        words = "a link to nothing, so the file was not fetched: `git annex get` or `dvc pull` it, and add it again"
        return UnreadableScanError(f"{path} is {words}")
    if path != root and path.is_symlink():
        target = path.resolve()
        if path.is_dir() or not (target.is_relative_to(root.resolve()) or STORES.search(target.as_posix())):
            return UnreadableScanError(f"{path} is a link out of the folder, or to a folder, not followed: copy it")
    head = _head(path) if path.is_file() else b""
    for start, command in POINTERS.items():
        if head.startswith(start):
            words = f"stands for a file that was not fetched: `{command}` it, and add it again"
            return UnreadableScanError(f"{path} {words}")
    return None


def _no_scan(path: Path, files: Sequence[Path]) -> ScanError | None:
    """Why nothing can be read where these files of a path are copied; known by names and first bytes."""
    from ctinterp_dagster.scan.io.find import may_hold_a_scan
    from ctinterp_dagster.scan.io.text_header import read_text_header
    from ctinterp_dagster.scan.io.volume_files import ITK_SUFFIXES

    if not any(map(may_hold_a_scan, files)):
        return UnreadableScanError(f"{path} holds no scan: expected DICOM, NIfTI, MetaImage, NRRD or a zip of them")
    if path.is_file() and path.name.lower().endswith(ITK_SUFFIXES):
        try:
            parts = read_text_header(path).parts
        except ScanError as error:
            return UnreadableScanError(f"{path}: {error}")
        if parts:
            return UnreadableScanError(f"{path} has its values in {parts[0].name}: expected both; add their folder")
    return None


def names_for(path: Path, *, alone: bool) -> Iterator[str]:
    """Names in data/raw for a file or folder, the shortest first: with its parents' names, then with a number.

    Args:
        path: what is added.
        alone: nothing else of its name is added with it; without parents' names it could not be told from that.

    Yields:
        Names without end.
    """
    whole = (
        path.parent.resolve() / path.name if path.name not in {"", ".."} else path.resolve()
    )  # a link keeps its name
    parts = [part.lstrip(".") for part in whole.parts[1:]]
    for k in range(1 if alone else 2, min(3, len(parts)) + 1):
        yield "/".join(parts[-k:])
    parent = parts[-2] if len(parts) > 1 else "scans"
    yield from (f"{parent}-{number}/{parts[-1]}" for number in count(2))


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a scans.csv.

    Args:
        path: of the file, UTF-8.

    Returns:
        A dictionary by column for each row; empty where there is no file.
    """
    return read_csv(path) if path.exists() else []


def given_for(path: Path, name: str) -> Iterator[dict[str, str]]:
    """What the tables beside a scan, or inside a folder, say of it, under its name in data/raw.

    Args:
        path: a file or folder, of which the tables lie beside or inside.
        name: of it, in data/raw.

    Yields:
        Rows of a scans.csv; none where no table has the scan.

    Raises:
        ParamsError: a line of `index.jsonl` is not JSON.
    """
    folder = path if path.is_dir() else path.parent
    listed = table_of(folder / "scans.csv")
    index = folder / "index.jsonl"
    if index.exists():
        try:
            listed += [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise ParamsError(f"{index} has a line that is not JSON ({error}): correct it") from error
    for row in listed:
        file = row.get("file")
        if isinstance(file, str) and (path.is_dir() or file == path.name):
            split = row.get("split") or row.get("use") or ""
            yield {
                "file": f"{name}/{file}" if path.is_dir() else name,
                "patient": row.get("patient") or file,
                "split": split,
            }


def add_one(path: Path, added: Added, rows: dict[str, dict[str, str]], *, alone: bool) -> Addition:
    """Add what can be added of a file or folder, and its rows to those of scans.csv.

    Args:
        path: a file or folder outside of data/raw.
        added: what data/raw holds.
        rows: of scans.csv, by file; new ones are put in.
        alone: nothing else of its name is added with it.

    Returns:
        What the user should know, and whether anything was added.
    """
    if path.resolve().is_relative_to(raw := added.raw.resolve()) or raw.is_relative_to(path.resolve()):
        return Addition([f"refused: {path} is or holds data/raw, or lies in it: expected scans from elsewhere"])
    bad = refusals(path)
    refused = [f"refused: {error}" for error in bad]
    good = [file for file in ([path] if path.is_file() else _files(path)) if _refusal(file, path) is None]
    if not good:
        return Addition(refused)
    if error := _no_scan(path, good):
        return Addition([*refused, f"refused: {error}"])
    names = names_for(path, alone=alone)
    if held := added.name_of(path):
        known = [row for row in given_for(path, held) if row["file"] in rows]
        if held in [next(names) for _ in range(3)]:
            rows |= {row["file"]: row for row in given_for(path, held) if row["file"] not in rows}
        words = "; data/raw/scans.csv names another patient or split: change it there" * any(
            rows[row["file"]] != row for row in known
        )
        return Addition([f"{path} is in data/raw already, as {held}: the same bytes, nothing added{words}", *refused])
    name = next(name for name in names if added.is_free(name, path))
    added.add(path, name)
    rows |= {row["file"]: row for row in given_for(path, name)}
    renamed = [] if name == path.name else [f"{path} is {name} in data/raw"]
    return Addition([*renamed, *refused], added=True)
