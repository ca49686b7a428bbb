"""Files that are whole or absent, in bytes that a second run repeats."""

import csv
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ctinterp_dagster.errors import EvaluationError, MissingInputError, MovedInputError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
JOURNAL = ".partial-journal"  # .dvcignore leaves out what is .partial-
STATS = ".partial-stats.json"
SETTLED_NS = 1_000_000_000  # a file younger than that can change without a trace in its times


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        with partial.open("r+b") as handle:  # Windows syncs only what may be written
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _canonical(value: Any, where: str) -> Any:
    """Round floats to 9 significant digits and refuse numbers that are not finite.

    Args:
        value: what is to be written.
        where: its dotted place in the record, for messages.

    Returns:
        The value in JSON's types; names are strings, and a dataclass is its fields.

    Raises:
        EvaluationError: a number is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _canonical(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EvaluationError(f"{where.lstrip('.')} is {value}: a record holds real numbers only")
        return float(f"{value:.9g}")
    return value


def write_json(path: Path, record: Any) -> None:
    """Write a mapping, a sequence or a dataclass as JSON: sorted keys, 9 significant digits, finite numbers only.

    Args:
        path: of the file.
        record: of what JSON holds, and dataclasses.

    Raises:
        EvaluationError: a number is NaN or infinite; the file is not written.
    """
    text = json.dumps(_canonical(record, ""), indent=2, sort_keys=True, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Args:
        path: of the file.

    Returns:
        Mappings, lists, strings, numbers, booleans or None, as the file has them.

    Raises:
        MissingInputError: the file is not there, or is damaged.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing: run the stage that writes it (`dvc repro`)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise MissingInputError(f"{path} is damaged ({error}): remove it and run `dvc repro`") from error


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV with a header, floats with 9 significant digits, Unix line ends, in one step.

    Args:
        path: of the file.
        rows: by column; what a row lacks stays empty.
        columns: in this order.

    Raises:
        ValueError: a row has another column.
    """
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n", extrasaction="raise")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header.

    Args:
        path: of the file, UTF-8.

    Returns:
        The rows in their order: text by the name of its column.

    Raises:
        MissingInputError: the file is not there.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing: run the stage that writes it (`dvc repro`)")
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of a folder's relative names and contents in sorted order."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class FileHashes:
    """Hashes of files, taken again only when a file is not what it was: size, inode, times of data and of inode.

    Attributes:
        path: where they are kept; DVC does not look at this file.
        known: by device and inode, for names may name a person: the file's status, and its hash.
        asked: those that were asked for, which are the ones that `save` keeps.
    """

    path: Path
    known: Mapping[str, Sequence[Any]]
    asked: dict[str, Sequence[Any]]

    @classmethod
    def load(cls, path: Path) -> "FileHashes":
        """Those of an earlier run, if there are any."""
        return cls(path, read_json(path) if path.exists() else {}, {})

    def of(self, path: Path) -> str | None:
        """The hash of a file, as `file_hash`; None if it is not there."""
        if not path.exists():
            return None
        if path.is_dir():
            return file_hash(path)
        status, now_ns = path.stat(), time.time_ns()
        seen = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
        name = f"{status.st_dev}-{status.st_ino}"
        before, value = self.asked.get(name) or self.known.get(name, (None, ""))
        if before != seen:
            value = file_hash(path)
        if now_ns - status.st_ctime_ns > SETTLED_NS:
            self.asked[name] = (seen, value)
        return str(value)

    def save(self) -> None:
        """Keep the hashes for the next run."""
        write_json(self.path, self.asked)


@dataclass(frozen=True)
class CaseJob:
    """A case that a stage is to make.

    Attributes:
        case: its id in the stage's folder.
        inputs: files whose content the outputs depend on.
        outputs: names of the output files, relative to the folder.
        action: writes every path that it is handed, in the order of `outputs`.
        about: what log lines call it.
    """

    case: str
    inputs: Sequence[Path]
    outputs: Sequence[str]
    action: Callable[[list[Path]], None]
    about: str


class MadeCases(NamedTuple):
    """The cases of a folder, and how many of them had to be made."""

    cases: list[str]
    made: int


@dataclass(frozen=True)
class CaseFolder:
    """A stage's folder in which each case is made once and reused while nothing that it depends on has changed.

    A case is keyed by a hash of the recipe (parameters and code version) and of its input files. `manifest.json`
    remembers the key and the hash of each output; a case whose outputs do not match is made again. While cases are made
    a journal holds what the manifest does not yet, so that a case costs the same however many there are.
    """

    folder: Path
    recipe: Mapping[str, Any]

    @cached_property
    def _entries(self) -> dict[str, Any]:
        return self._read()

    def _read(self) -> dict[str, Any]:
        """The manifest, and on top of it the journal."""
        manifest = self.folder / MANIFEST
        entries = dict(read_json(manifest)) if manifest.exists() else {}
        if (self.folder / JOURNAL).exists():
            for line in (self.folder / JOURNAL).read_text(encoding="utf-8").split("\n"):
                with suppress(json.JSONDecodeError):  # empty, or cut off when the process was killed
                    case, entry = json.loads(line)
                    entries[case] = entry
        return entries

    @cached_property
    def _hashes(self) -> "FileHashes":
        return FileHashes.load(self.folder / STATS)

    def make(
        self, case: str, inputs: Sequence[Path], outputs: Sequence[str], action: Callable[[list[Path]], None]
    ) -> bool:
        """Run `action` on the temporary paths of the outputs unless they are there already.

        Args:
            case: the case's id.
            inputs: files whose content the outputs depend on.
            outputs: names of the output files, relative to the folder.
            action: writes every path that it is handed, in the order of `outputs`.

        Returns:
            Whether it ran.

        Raises:
            MovedInputError: an input is not what it was before the action; nothing is kept of the case.
        """
        of_inputs = [self._hashes.of(path) for path in inputs]
        key = hashlib.sha256(json.dumps([self.recipe, of_inputs], sort_keys=True).encode()).hexdigest()
        known = self._entries.get(case, {})
        paths = [self.folder / name for name in outputs]
        if known.get("key") == key and known["outputs"] == {n: self._hashes.of(self.folder / n) for n in outputs}:
            return False
        scratch = self.folder / f".partial-{os.getpid()}"
        try:
            partial = [scratch / name for name in outputs]
            for path in partial:
                path.parent.mkdir(parents=True, exist_ok=True)
            action(partial)
            if [self._hashes.of(path) for path in inputs] != of_inputs:
                raise MovedInputError(f"what {case} is made of changed while it was read: run `dvc repro` again")
            for source, target in zip(partial, paths, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                source.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        entry = {"key": key, "outputs": {n: file_hash(self.folder / n) for n in sorted(outputs)}}
        self._entries[case] = entry
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write("\n" + json.dumps([case, entry]))  # the line before may be cut off
        return True

    def make_all(self, jobs: Iterable[CaseJob]) -> MadeCases:
        """Make what is not there already of every job, with a line of the log each.

        Args:
            jobs: one a case.

        Returns:
            The cases of all jobs, in their order, and how many had to be made.

        Raises:
            MovedInputError: an input is not what it was before its case was made; nothing is kept of that case.
        """
        cases, made = [], 0
        for job in jobs:
            ran = self.make(job.case, job.inputs, job.outputs, job.action)
            logger.info("%s %s", job.about, "made" if ran else "unchanged")
            cases.append(job.case)
            made += ran
        return MadeCases(cases, made)

    def keep_only(self, cases: Iterable[str]) -> None:
        """Write the manifest; remove every case that is not named, and every file that belongs to no case.

        Args:
            cases: ids of those that stay, made by this object or by another one of the same folder.
        """
        kept = set(cases)
        manifest = {case: entry for case, entry in self._read().items() if case in kept}
        write_json(self.folder / MANIFEST, manifest)
        self._hashes.save()
        owned = {self.folder / name for entry in manifest.values() for name in entry["outputs"]}
        owned |= {self.folder / MANIFEST, self.folder / STATS}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path not in owned:
                path.unlink()
        self._entries.clear()
        self._entries.update(manifest)
