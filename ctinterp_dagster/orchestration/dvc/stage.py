"""What a stage of a resolved DVC project is, without DVC's own classes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


class DvcProjectError(Exception):
    """The DVC project cannot be read, or is not what Dagster was told."""


def digest(record: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a record's canonical JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class DvcInput:
    """A data dependency: something that another stage makes, or a source that no stage makes.

    Attributes:
        path: where it is, relative to the project's root.
        maker: the target of the stage that makes it; None for a source.
        read: its hash when the stage last ran; None if it never ran with it.
        now: its hash in the workspace; `missing` if it is not there.
        changed: whether DVC would run the stage again because of it; never for a frozen stage.
    """

    path: str
    maker: str | None
    read: str | None
    now: str
    changed: bool


@dataclass(frozen=True)
class DvcOutput:
    """An output of a stage.

    Attributes:
        path: where it is, relative to the project's root.
        metric: whether it is listed under `metrics`.
        plot: whether it is listed under `plots`.
        drift: what DVC says of it when the workspace does not hold what dvc.lock says; None if it does.
        uri: where `dvc push` puts it; None without a remote, or for what is not cached.
    """

    path: str
    metric: bool
    plot: bool
    drift: str | None
    uri: str | None = None


@dataclass(frozen=True)
class DvcSource:
    """Data that no stage makes: what `dvc add`, `dvc import` or `dvc import-url` track, and `meta.dagster.sources`.

    Attributes:
        path: where it is, relative to the project's root.
        now: its hash in the workspace; `missing` if it is not there.
        origin: where `dvc import` or `dvc import-url` took it from; None otherwise.
        description: the `desc` of its .dvc file.
        size: bytes in the workspace; None if DVC does not know.
        files: number of files, of a folder.
    """

    path: str
    now: str
    origin: str | None
    description: str | None
    size: int | None = None
    files: int | None = None


@dataclass(frozen=True)
class DvcIndex:
    """A DVC project at one moment.

    Attributes:
        stages: by target, sorted.
        sources: by path, sorted.
        read_at: when the reading began, seconds since the epoch.
    """

    stages: Mapping[str, "DvcStage"]
    sources: Mapping[str, DvcSource]
    read_at: float

    def named(self, name: str) -> list[str]:
        """The targets that a name fits: `train`, `fit@a`, `fit` for all of its items, `sub/dvc.yaml`, `fit@*`."""
        return [
            stage.target
            for stage in self.stages.values()
            if any(fnmatchcase(own, name) for own in (stage.target, stage.target.split("@")[0], stage.file))
        ]


@dataclass(frozen=True)
class DvcStage:
    """One stage as DVC resolves it: after templates, vars, foreach and matrix, relative to the project's root.

    Attributes:
        name: that DVC prints, for example `train` or `fit@a`.
        target: what `dvc repro` takes: the name, or `<folder>/dvc.yaml:<name>`.
        folder: the folder of its dvc.yaml, empty for the root.
        command: what it runs.
        description: its `desc`.
        settings: its `meta.dagster`.
        recipe: command, parameters and code as they are now, and drift; values that DVC calls unchanged are those of
            dvc.lock, letter for letter.
        locked_recipe: the same as of the last run; None if dvc.lock does not know the stage.
        lock: its entry in dvc.lock, without versions of a `version_aware` remote; None if there is none.
        inputs: its data dependencies.
        outputs: its outputs, metrics and plots.
    """

    name: str
    target: str
    folder: str
    command: str
    description: str | None
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    locked_recipe: Mapping[str, Any] | None
    lock: Mapping[str, Any] | None
    inputs: tuple[DvcInput, ...]
    outputs: tuple[DvcOutput, ...]

    @property
    def file(self) -> str:
        """Its dvc.yaml."""
        return f"{self.folder}/dvc.yaml" if self.folder else "dvc.yaml"

    @property
    def pipes(self) -> bool:
        """Whether it speaks to Dagster while it runs: `meta.dagster.pipes`."""
        return bool(self.settings.get("pipes"))

    @property
    def partition(self) -> str | None:
        """Its item of the foreach or matrix, where `meta.dagster.partitions` makes one asset of all items."""
        return self.name.partition("@")[2] or None if self.settings.get("partitions") else None

    @property
    def code_version(self) -> str:
        """A hash of command, parameters and code dependencies, as they are now."""
        return digest(self.recipe)

    @property
    def locked_code_version(self) -> str | None:
        """The code version of the last run."""
        return None if self.locked_recipe is None else digest(self.locked_recipe)

    @property
    def data_version(self) -> str | None:
        """A hash of the outputs of the last run."""
        if self.lock is None:
            return None
        hashes = {out["path"]: out.get("md5") or out.get("etag") for out in self.lock.get("outs", [])}
        return digest(hashes)

    @property
    def changed(self) -> bool:
        """Whether `dvc status` lists the stage."""
        return self.code_version != self.locked_code_version or any(i.changed for i in self.inputs)

    @property
    def sources(self) -> tuple[DvcInput, ...]:
        """The data dependencies that no stage makes."""
        return tuple(i for i in self.inputs if i.maker is None)

    @property
    def makers(self) -> tuple[str, ...]:
        """Targets of the stages whose outputs it reads, sorted."""
        return tuple(sorted({i.maker for i in self.inputs if i.maker is not None}))
