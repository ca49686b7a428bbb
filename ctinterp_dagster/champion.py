"""The champion and every challenger that was judged, on disk.

`data/promote/champion.json` is the pointer: the hash of one model. `models/<hash>/` holds the files of each model that
was promoted, `challengers/<hash>.json` what is known of each that was judged. Files come before the record, the record
before the pointer, and the pointer moves in one step: an interruption leaves the old champion or the new one, whole.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ctinterp_dagster.decision import Decision, Metrics, mismatch
from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.records import file_hash, read_json, whole_file, write_json

RecordT = TypeVar("RecordT")

JUDGED = "nullspace/model.safetensors"
"""Where a model's folder has the weights that are judged."""

PLACES = {JUDGED: "train", "maisi/model.safetensors": "latent"}
"""The files of a model's folder and the stages that write them; a hash of before stays if they keep their names."""

DIGITS = 16  # of a model's hash in names
RESTORE = "`dvc checkout --force {0}` or `dvc pull --force {0}` brings it back; without {0} the next model is the first"


@dataclass(frozen=True)
class Challenger:
    """What is known of a model that was judged.

    Attributes:
        model_hash: of its files.
        number: how many were judged before it.
        against: the champion's hash at that time; None for the first.
        decision: of the gate.
        metrics: what the gate was shown.
        seen: content hash by case of every scan there was when it was trained.
        data: hashes of what it was made from and measured on.
        rolled_back: why it was taken back after its promotion; empty if it was not.
        sources: licence and citation of the scans that it was trained on, with their number;
            scans of which neither was told are not among them.
    """

    model_hash: str
    number: int
    against: str | None
    decision: Decision
    metrics: Metrics
    seen: Mapping[str, str]
    data: Mapping[str, str]
    rolled_back: str
    sources: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The short hash that folders, tags and people use."""
        return self.model_hash[:DIGITS]


@dataclass(frozen=True)
class Pointer:
    """The champion, by its hash."""

    model_hash: str


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model's folder by their place in it."""
    return {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("model.safetensors"))}


def trained_models(layout: Layout) -> dict[str, Path]:
    """What was trained last, by its place in a model's folder.

    Args:
        layout: where things are.

    Returns:
        The paths, all of which exist.

    Raises:
        MissingInputError: a stage has trained nothing yet.
    """
    files = {place: layout.trained(stage) for place, stage in PLACES.items()}
    for place, file in files.items():
        if not file.exists():
            raise MissingInputError(f"{file} is missing: run `dvc repro {PLACES[place]}`")
    return files


def model_hash(files: Mapping[str, Path]) -> str:
    """SHA-256, in hexadecimal, of the places and contents of a model's files.

    Args:
        files: by their place in the model's folder.

    Returns:
        64 digits; the order of the places does not matter.
    """
    contents = {place: file_hash(file) for place, file in files.items()}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def seen_scans(layout: Layout) -> dict[str, str]:
    """Content hash of every case that ingest has made.

    Args:
        layout: where things are.

    Returns:
        SHA-256 in hexadecimal by case id; empty before the first run of ingest.

    Raises:
        MissingInputError: what ingest wrote of itself is damaged.
    """
    manifest = layout.ingest / "manifest.json"
    entries = read_json(manifest) if manifest.exists() else {}
    outputs = {case: json.dumps(entry["outputs"], sort_keys=True) for case, entry in entries.items()}
    return {case: hashlib.sha256(text.encode()).hexdigest() for case, text in outputs.items()}


def card(challenger: Challenger, commit: str) -> str:
    """What is known of a model, as Markdown.

    Args:
        challenger: the model.
        commit: where its weights, data and figures can be checked out.

    Returns:
        Lines of Markdown, the last one ended.
    """
    lines = [
        f"# Model {challenger.name}",
        "",
        f"Number {challenger.number} of those judged; {len(challenger.seen)} scans; commit `{commit}`.",
        "",
        "| task | cases | PSNR dB | best classical | PSNR dB | largest residual HU |",
        "|---|---|---|---|---|---|",
    ]
    for name, task in sorted(challenger.metrics.tasks.items()):
        lines.append(
            f"| {name} | {len(task.psnr_db_by_case)} | {task.psnr_db:.2f} | {task.baseline} | "
            f"{task.baseline_psnr_db:.2f} | {task.residual_hu:.3f} |"
        )
    lines += ["", *(f"- {finding.verdict}: {finding.text}" for finding in challenger.decision.findings)]
    if challenger.rolled_back:
        lines += [f"- rolled back: {challenger.rolled_back}"]
    if challenger.sources:
        lines += ["", "| scans trained on | licence and citation |", "|---|---|"]
        lines += [f"| {count} | {source} |" for source, count in challenger.sources.items()]
    hashes = {"model": challenger.model_hash, "test set": challenger.metrics.test_set_hash, **challenger.data}
    lines += ["", "| SHA-256 of | |", "|---|---|", *(f"| {name} | `{value}` |" for name, value in hashes.items())]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Registry:
    """The folder `data/promote`."""

    folder: Path

    @property
    def champion(self) -> Challenger | None:
        """The present champion; None before the first promotion.

        Raises:
            MissingInputError: the pointer is damaged, or the champion's record or files are damaged or gone.
        """
        pointer = self.folder / "champion.json"
        if not pointer.exists():
            return None
        hash_ = self._read(Pointer, pointer).model_hash
        champion, files = self.get(hash_), self.files(hash_)
        if champion is None or not model_files(files):
            gone = self._record(hash_) if champion is None else files
            raise MissingInputError(f"{pointer} names a model, but {gone} is missing: {self._restore}")
        return champion

    @property
    def challengers(self) -> list[Challenger]:
        """Every model that was judged, in the order of their numbers.

        Raises:
            MissingInputError: a record is damaged.
        """
        records = [self._read(Challenger, path) for path in (self.folder / "challengers").glob("*.json")]
        return sorted(records, key=lambda challenger: challenger.number)

    def get(self, hash_: str) -> Challenger | None:
        """What is known of a model, by its hash.

        Args:
            hash_: of the model, whole.

        Returns:
            The record; None if the model was never judged.

        Raises:
            MissingInputError: the record is damaged.
        """
        path = self._record(hash_)
        return self._read(Challenger, path) if path.exists() else None

    def files(self, hash_: str) -> Path:
        """The folder of a promoted model's files."""
        return self.folder / "models" / hash_[:DIGITS]

    def record(self, challenger: Challenger) -> None:
        """Keep what is known of a model."""
        write_json(self._record(challenger.model_hash), challenger)

    def judged_on(self, challenger: Challenger) -> str:
        """The day, such as 2026-11-28 (UTC), on which the record of a model was written on this machine."""
        return f"{datetime.fromtimestamp(self._record(challenger.model_hash).stat().st_mtime, UTC):%Y-%m-%d}"

    def keep_files(self, hash_: str, files: Mapping[str, Path]) -> None:
        """Copy the files of a model to their places, each whole or not at all."""
        for place, file in files.items():
            with whole_file(self.files(hash_) / place) as partial:
                shutil.copyfile(file, partial)

    def point_at(self, hash_: str) -> None:
        """Make a model whose files are in place the champion."""
        write_json(self.folder / "champion.json", Pointer(hash_))

    def reset(self, reason: str) -> None:
        """Take the champion back and leave its place empty: the next model is judged as the first.

        It is not promoted again by itself.

        Args:
            reason: kept in the record of the champion.

        Raises:
            MissingInputError: there is no champion.
        """
        champion = self.champion
        if champion is None:
            raise MissingInputError("there is no champion to take back: promote a model first (`dvc repro`)")
        self.record(replace(champion, rolled_back=reason))
        (self.folder / "champion.json").unlink()

    def roll_back(self, reason: str, to: str = "") -> Challenger:
        """Take the champion back for the one before it, or the promoted model whose hash begins with `to`.

        The one taken back is not promoted again by itself. Calling it twice with the same `to` changes nothing.

        Args:
            reason: kept in the record of the model that is taken back.
            to: the first digits of a hash; empty for the one before.

        Returns:
            The new champion.

        Raises:
            MissingInputError: there is no such model.
        """
        champion = self.champion
        target = self._target(champion, to)
        self.record(replace(target, rolled_back=""))
        if champion and champion.model_hash != target.model_hash:
            self.record(replace(champion, rolled_back=reason))
        self.point_at(target.model_hash)
        return replace(target, rolled_back="")

    def _target(self, champion: Challenger | None, to: str) -> Challenger:
        wanted = to or (champion.against if champion else None)
        if not wanted:
            raise MissingInputError(
                "there is no earlier champion to go back to: `ctinterp champion reset` leaves the place empty"
            )
        kept = [c for c in self.challengers if model_files(self.files(c.model_hash))]
        found = [c for c in kept if c.model_hash.startswith(wanted)]
        if len(found) != 1:
            names = ", ".join(c.name for c in kept) or "none"
            raise MissingInputError(
                f"{self.folder} holds {len(found)} of a champion that begins with {wanted!r}: expected one of: {names}"
            )
        return found[0]

    def _record(self, hash_: str) -> Path:
        return self.folder / "challengers" / f"{hash_[:DIGITS]}.json"

    def _read(self, kind: type[RecordT], path: Path) -> RecordT:
        """A record of this folder.

        Args:
            kind: of record.
            path: of the file.

        Returns:
            What the file says, checked against the fields of `kind`.

        Raises:
            MissingInputError: the file is damaged or of another version.
        """
        try:
            return TypeAdapter(kind).validate_python(read_json(path))
        except MissingInputError as error:
            raise MissingInputError(f"{path} is damaged: {self._restore}") from error
        except ValidationError as error:
            raise MissingInputError(f"{path} is of another version ({mismatch(error)}): {self._restore}") from error

    @property
    def _restore(self) -> str:
        return RESTORE.format(self.folder)
