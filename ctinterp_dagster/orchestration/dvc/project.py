"""The DVC project that Dagster shows: read as DVC resolves it, never written."""

import time
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException

from .index import find_root, read_index
from .stage import DvcIndex, DvcProjectError, DvcSource, DvcStage

_ATTEMPTS = 6
_FIRST_WAIT_S = 0.1
_FRESH_S = 0.05


@dataclass(frozen=True)
class DvcProject:
    """A DVC project on disk.

    Attributes:
        root: the folder of `.dvc`, absolute.
        select: the stages that are shown: names as `dvc repro` takes them, with `*` and `?`; all where it is empty.
        exclude: those that are not.
    """

    root: Path
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def at(cls, folder: Path) -> "DvcProject":
        """The whole project that holds a folder.

        Args:
            folder: the project's root, or a folder below it.

        Returns:
            The project, with every stage selected.

        Raises:
            DvcProjectError: there is none.
        """
        return cls(find_root(folder))

    def read(self) -> DvcIndex:
        """Every stage and source, as the files say now (a tenth of a second, and the hashing of what changed).

        DVC writes dvc.lock in place, so a reader may meet it empty or half-written: it is read again if it is not
        readable, or was written while it was being read.

        Returns:
            Stages by target and sources by name.

        Raises:
            DvcProjectError: the project cannot be read.
        """
        wait_s, left = _FIRST_WAIT_S, _ATTEMPTS
        while True:
            left -= 1
            start = time.time()
            try:
                index = read_index(self.root)
            except (DvcException, OSError) as error:
                if not left:
                    raise DvcProjectError(f"the DVC project at {self.root} cannot be read: {_reason(error)}") from error
            else:
                if not left or not self._locks_written_since(index, start - _FRESH_S):
                    return index
            time.sleep(wait_s)
            wait_s *= 2

    def shown(self, index: DvcIndex) -> dict[str, DvcStage]:
        """The selected stages of the project, by target.

        Args:
            index: what was read of the project.

        Returns:
            Stages by target, in the order of the index.

        Raises:
            DvcProjectError: a name of `select` or `exclude` fits no stage.
        """
        for name in (*self.select, *self.exclude):
            if not index.named(name):
                raise DvcProjectError(f"{name!r} is no stage of the project: expected one of {', '.join(index.stages)}")
        chosen = {target for name in self.select for target in index.named(name)} or set(index.stages)
        chosen -= {target for name in self.exclude for target in index.named(name)}
        return {target: stage for target, stage in index.stages.items() if target in chosen}

    def shown_sources(self, index: DvcIndex) -> dict[str, DvcSource]:
        """The sources of the selected stages by path, and where all are selected those that no stage reads."""
        read = {source.path for stage in self.shown(index).values() for source in stage.sources}
        whole = not self.select and not self.exclude
        return {path: source for path, source in index.sources.items() if whole or path in read}

    def _locks_written_since(self, index: DvcIndex, start: float) -> bool:
        locks = [self.root / folder / "dvc.lock" for folder in {stage.folder for stage in index.stages.values()}]
        return any(lock.stat().st_mtime >= start for lock in locks if lock.exists())


def _reason(error: Exception) -> str:
    """The message of an error and of its first cause, on one line."""
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return " ".join(f"{error}{cause}".split())
