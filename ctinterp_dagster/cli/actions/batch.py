"""Every thick scan of many inputs, one after the other: what is done is kept, and one that fails ends no other."""

import hashlib
import json
import shutil
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import click

from ctinterp_dagster.cli.actions.interpolate import Restoration
from ctinterp_dagster.cli.actions.naming import Item, items_of, named_outputs, stem_of
from ctinterp_dagster.cli.actions.outputs import Outputs, check_files
from ctinterp_dagster.cli.actions.record import Record
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.memory_slots import claim
from ctinterp_dagster.cli.options.interpolate import Options
from ctinterp_dagster.cli.progress import duration
from ctinterp_dagster.errors import NO_ROOM, CtinterpError, MissingInputError, NotCtError, ParamsError, disk_problem
from ctinterp_dagster.records import read_json, write_json
from ctinterp_dagster.scan.io import check_overwriting, input_files, read_scan

DECIDING = (
    "as_dicom", "as_multiframe", "spacing_mm", "factor", "thickness_mm", "thin_mm", "profile", "method", "steps",
    "samples", "sampler", "seed", "mixed_precision",
)  # fmt: skip
"""The options that decide what a result is."""

Outcome = Literal["done", "skipped", "failed"]
INDENT = 8 * " "  # of reasons in the closing table


class Skip(Exception):  # noqa: N818 (no error)
    """A scan that there is nothing to do for; the message says why."""


@dataclass(frozen=True)
class ScanResult:
    """What became of a scan.

    Attributes:
        path: its place below the inputs.
        outcome: the word for it.
        said: one line of what was done, or why nothing was.
        record: of what was done; None where nothing was.
    """

    path: str
    outcome: Outcome
    said: str
    record: Record | None = None


def run(options: Options) -> None:
    """Restore every thick scan of the inputs.

    Args:
        options: of the command.

    Raises:
        MissingInputError: there is no scan below the inputs.
        CtinterpError: an input is missing, the output cannot be written to, or the model cannot be read.
        Exit: 1, where a scan failed.
    """
    batch = BatchRun(options)
    items = items_of(options.sources)
    if not items:
        raise MissingInputError(f"no scan below {', '.join(map(str, options.sources))}: give files or folders of scans")
    try:
        batch.restore(list(named_outputs(items, options)))
    finally:
        batch.show()
    if any(result.outcome == "failed" for result in batch.results):
        raise click.exceptions.Exit(1)


class BatchRun:
    """A run over many scans with one model."""

    def __init__(self, options: Options) -> None:
        """Refuse, before the first scan, what would fail for each.

        Args:
            options: of the command.

        Raises:
            ParamsError: the output is a file.
        """
        self.options, self.restoration, self.results, self.count = options, Restoration(options), list[ScanResult](), 0
        for source in options.sources:
            check_overwriting(source, [options.output], force=True)
        if options.output.exists() and not options.output.is_dir():
            raise ParamsError(f"{options.output} is a file: give a folder for the results of many scans")
        check_files(options.sources, [options.json] if options.json else [], force=True)
        self.restoration.load()

    def restore(self, work: Sequence[tuple[Item, Outputs]]) -> None:
        """Restore each scan; what goes wrong with one is told, and the next comes.

        Args:
            work: scans, and where their results are to be.

        Raises:
            OSError: the disk takes no more.
        """
        self.count = len(work)
        sizes = [sum(file.stat().st_size for file in item.files) for item, _ in work]
        start, spent = time.monotonic(), 0
        for number, ((item, outputs), size) in enumerate(zip(work, sizes, strict=True), start=1):
            left = (time.monotonic() - start) * sum(sizes[number - 1 :]) / spent if spent else None
            title = ", ".join(filter(None, (item.name, item.title)))
            click.echo(f"{number}/{len(work)}{f', {duration(left)} left' if left else ''}: {title}")
            result = self._tried(item, outputs)
            spent += size if result.outcome == "done" else 0
            click.echo(f"{result.outcome}: {result.said}", err=result.outcome == "failed")
            self.results.append(result)
            self._log(item.name, result)

    def _log(self, name: str, result: ScanResult) -> None:
        if self.options.json:
            record = result.record.as_json() if result.record else {"said": result.said}
            with self.options.json.open("a", encoding="utf-8") as lines:
                line = {"input": name, "verdict": result.outcome, **record}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _tried(self, item: Item, outputs: Outputs) -> ScanResult:
        try:
            record = self._restored(item, outputs)
        except Skip as skip:
            return ScanResult(item.path, "skipped", str(skip))
        except (CtinterpError, click.UsageError) as error:
            message = error.format_message() if isinstance(error, click.UsageError) else str(error)
            return ScanResult(item.path, "failed", message)
        except OSError as error:
            problem = disk_problem(error)
            if problem is None or error.errno in NO_ROOM:
                raise
            return ScanResult(item.path, "failed", problem)
        return ScanResult(item.path, "done", record.summary, record)

    def _restored(self, item: Item, outputs: Outputs) -> Record:
        """The record of a scan that is restored now.

        Args:
            item: the scan.
            outputs: the places of its results.

        Returns:
            The new record; its file lies beside the result.

        Raises:
            Skip: it is not, or another run restores it.
        """
        self._skip_unfit(item)
        path = outputs.thin.with_name(f"{stem_of(outputs.thin)}.json")
        with claim(path) as ours:
            if not ours:
                raise Skip("another run is at it")
            return self._claimed(item, outputs, path)

    def _claimed(self, item: Item, outputs: Outputs, path: Path) -> Record:
        """The record of a scan, which is at `path` too."""
        origin = self._origin(item, outputs)
        ours = self._is_ours(path, outputs, origin)
        for place in (path, *outputs.paths):
            place.parent.mkdir(parents=True, exist_ok=True)
        outputs.check(item.source, self.restoration.model, force=ours or self.options.force)
        scans = tuple(read_scan(part) for part in item.parts)
        self._skip_thin(min(scan.volume.spacing_mm[0] for scan in scans))
        write_json(path, {"made_of": origin, "finished": False})
        try:
            record = self.restoration.restore(scans, outputs, item.name)
        except Exception:
            path.unlink()
            raise
        write_json(path, record.as_json() | {"made_of": origin, "finished": True})
        return record

    def _skip_unfit(self, item: Item) -> None:
        """Pass over what is no CT of slices, or thin by its headers.

        Args:
            item: a scan, as its headers have it.

        Raises:
            Skip: it is such.
            ScanError: it cannot be read.
        """
        for part in item.parts:
            if isinstance(part.refusal, NotCtError):
                raise Skip(str(part.refusal))
            if part.refusal:
                raise part.refusal
        if all(part.place for part in item.parts):
            self._skip_thin(min(part.place.spacing_mm[0] for part in item.parts if part.place))

    def _skip_thin(self, distance_mm: float) -> None:
        target_mm = self.options.target_mm(distance_mm)
        if distance_mm <= target_mm:
            raise Skip(f"its slices are {distance_mm:.4g} mm apart: not thicker than the {target_mm:g} mm asked for")

    def _origin(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        """All that decides what a result is."""
        options = {name: getattr(self.options, name) for name in DECIDING}
        return {
            "input": item.parts[0].label,
            "input_sha256": contents_of(item),
            "labels_sha256": [sha256sum(label) for label, _ in outputs.labels if label.exists()],
            "options": {name: repr(value) for name, value in options.items()},
            "model_sha256": self.restoration.known_model.get("model_sha256"),
            "version": version("ctinterp"),
            "outputs": [path.name for path in outputs.paths],
        }

    def _is_ours(self, path: Path, outputs: Outputs, origin: Mapping[str, Any]) -> bool:
        """Whether what lies in the places may be replaced: the rest of the same run, or anything if forced.

        Args:
            path: of the record beside the result.
            outputs: the places of the result.
            origin: what the result is to be made of.

        Returns:
            False where the places are free.

        Raises:
            Skip: it is done.
            ParamsError: there is another result, which nothing allows to replace.
        """
        record = read_json(path) if path.exists() else {}
        same, there = record.get("made_of") == origin, all(place.exists() for place in outputs.paths)
        if same and there and (record["finished"] or outputs.thin.is_dir()):
            raise Skip("done before")
        if same or self.options.force:
            return True
        if present := [place for place in (*outputs.paths, path) if place.exists()]:
            what = "of another scan or by other options" if record.get("made_of") else "by something else"
            raise ParamsError(f"{present[0]} was made {what}: choose another --output or --name, or give --force")
        return False

    def show(self) -> None:
        """Print what became of each scan: a line of what is done, and the whole reason of what is not."""
        width = shutil.get_terminal_size().columns
        for result in self.results:
            if result.outcome == "done":
                line = f"{result.outcome:8}{result.path}: {result.said}"
                click.echo(line if len(line) <= width else f"{line[: width - 1]}…")
                continue
            named, _, reason = result.said.partition(": ")
            repeated = reason and stem_of(Path(named)) == result.path.rpartition("/")[2]
            click.echo(f"{result.outcome:8}{result.path}")
            why = reason if repeated else result.said
            click.echo(textwrap.fill(why, width, initial_indent=INDENT, subsequent_indent=INDENT))
        counts = Counter(result.outcome for result in self.results)
        left = self.count - len(self.results)
        then = f", {left} left: the same command goes on with them" if left else ""
        click.echo(", ".join(f"{counts[word]} {word}" for word in ("done", "skipped", "failed")) + then)


def contents_of(item: Item) -> str:
    """SHA-256 of the bytes of a scan's files, and of its name among those of an archive."""
    digest = hashlib.sha256(repr([(part.name if part.archive else "", part.frames) for part in item.parts]).encode())
    for file in sorted({own for held in item.files for own in input_files(held)}):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
