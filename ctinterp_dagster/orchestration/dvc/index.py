"""The only module that touches DVC's Python classes: one adapter between its index and `DvcStage`."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.dvcfile import ProjectFile
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.repo import Repo
from dvc.stage.loader import StageLoader
from dvc.utils.serialize import load_path
from dvc_data.hashfile.tree import Tree

from .folders import Folders
from .stage import DvcIndex, DvcInput, DvcOutput, DvcProjectError, DvcSource, DvcStage


class _StageLoader(StageLoader):  # type: ignore[misc] # DVC has no types
    """DVC's own, by which each stage keeps its entry of dvc.lock: that file takes longest to parse."""

    @classmethod
    def load_stage(cls, dvcfile: Any, name: str, stage_data: Any, lock_data: Any = None) -> Any:
        stage = super().load_stage(dvcfile, name, stage_data, lock_data)
        stage.lock_entry = lock_data or None
        return stage


ProjectFile.LOADER = _StageLoader


def find_root(start: Path) -> Path:
    """The root of the DVC project that holds a folder.

    Args:
        start: the project's root, or a folder below it.

    Returns:
        The folder that has `.dvc`.

    Raises:
        DvcProjectError: no folder from `start` upwards holds a `.dvc`.
    """
    try:
        return Path(Repo.find_root(str(start)))
    except DvcException as error:
        raise DvcProjectError(
            f"no DVC project at {start} or above it: run `dvc init`, or start in the project"
        ) from error


def read_index(root: Path) -> DvcIndex:
    """Every stage of every dvc.yaml below `root`, resolved, and every source; dvc.lock and workspace compared.

    Args:
        root: of the project, the folder of `.dvc`.

    Returns:
        Stages by target and sources by name, with the time of reading.

    Raises:
        DvcException: dvc.yaml, dvc.lock or params.yaml cannot be read or resolved.
        OSError: a file vanished while it was hashed.
    """
    read_at = time.time()
    with Repo(str(root)) as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd is not None]
        imports = [stage for stage in repo.index.stages if stage.cmd is None]
        folders = Folders(Path(repo.site_cache_dir) / "dagster-folders.json")
        items = [item for stage in repo.index.stages for item in (*stage.deps, *stage.outs)]
        _remember(items, folders)
        _look_once(items)
        reader = _Reader(
            root=root,
            makers={_path(out, root): _target(stage, root) for stage in stages for out in stage.outs},
            tracked={_path(out, root): (stage, out) for stage in imports for out in stage.outs},
            deps={_path(dep, root): dep for stage in stages for dep in stage.deps},
            drifted=frozenset(_path(out, root) for stage in stages for out in stage.outs if out.status()),
        )
        read = sorted((reader.stage(stage) for stage in stages), key=lambda stage: stage.target)
        index = DvcIndex({stage.target: stage for stage in read}, reader.sources(read), read_at)
        folders.keep()
        return index


def read_metrics(path: Path) -> Any:
    """The content of a metrics file (JSON, YAML or TOML) as DVC reads it."""
    return load_path(str(path), localfs)


def _path(item: Any, root: Path) -> str:
    """The path of a dependency or output: relative to the root if it is a local file, else as it is written."""
    if item.protocol != "local":
        return str(item.def_path)
    return Path(os.path.relpath(item.fs_path, root)).as_posix()


def _target(stage: Any, root: Path) -> str:
    """What `dvc repro` takes for a stage when it runs in the root."""
    file = Path(os.path.relpath(stage.path, root)).as_posix()
    return str(stage.name) if file == "dvc.yaml" else f"{file}:{stage.name}"


def _within(path: str, folders: Iterable[str]) -> str | None:
    """The first of `folders` that is `path`, holds it, or lies in it."""
    parts = Path(path).parts
    for folder in folders:
        other = Path(folder).parts
        shared = min(len(parts), len(other))
        if parts[:shared] == other[:shared]:
            return folder
    return None


def _status(item: Any) -> Any:
    """DVC's word on a dependency or output; empty if it is what dvc.lock says."""
    return next(iter(item.status().values()), None)


def _remember(items: Sequence[Any], folders: Folders) -> None:
    """Let dependencies and outputs ask a memory of folders before they look through one."""
    for item in items:
        if item.protocol == "local" and not isinstance(item, ParamsDependency):
            look = item._get_hash_meta  # noqa: SLF001 (as below)
            item._get_hash_meta = partial(folders.look, item.fs_path, item.hash_name, look)  # noqa: SLF001


def _look_once(items: Sequence[Any]) -> None:
    """Let dependencies and outputs of the same path, which are objects of their own, share one look at the files.

    The state of each is asked for once, and a file of parameters is parsed once for all stages.
    """
    known: dict[tuple[str, str, str], Any] = {}

    def shared(key: tuple[str, str, str], look: Callable[[], Any]) -> Any:
        if key not in known:
            known[key] = look()
        return known[key]

    asked: dict[str, set[str]] = {}
    for item in items:
        if isinstance(item, ParamsDependency):
            asked.setdefault(item.fs_path, set()).update(item.params)

    def parameters(item: Any, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def all_of_file() -> dict[str, Any]:
            item.params, own = sorted(asked[item.fs_path]), item.params
            try:
                return read()
            finally:
                item.params = own

        if not item.params:
            return read()  # the whole file
        found = shared(("parameters", item.fs_path, ""), all_of_file)
        return {name: found[name] for name in item.params if name in found}

    for item in items:
        item.status = cache(item.status)
        if isinstance(item, ParamsDependency):
            item.read_params = partial(parameters, item, item.read_params)
        else:
            look = item._get_hash_meta  # noqa: SLF001 - get_hash and get_meta are each a half of it
            item._get_hash_meta = partial(shared, (item.protocol, item.fs_path, item.hash_name), look)  # noqa: SLF001 (DVC has no public one)


def _hash(item: Any) -> Any:
    """The hash of a dependency in the workspace.

    A folder that a running stage removes between the look and the hash counts as absent, as it will be for DVC.

    Args:
        item: a dependency of DVC.

    Returns:
        DVC's hash; `missing` if it is not there.
    """
    try:
        return item.get_hash().value if item.exists else "missing"
    except (FileNotFoundError, DvcException):
        return "missing"


def _uri(out: Any) -> str | None:
    """Where `dvc push` puts an output as dvc.lock has it."""
    config = out.repo.config
    remote = config["remote"].get(out.remote or config["core"].get("remote"))
    if remote is None or not out.use_cache or not out.hash_info:
        return None
    if remote.get("version_aware") or remote.get("worktree"):
        return f"{remote['url']}/{_path(out, Path(out.repo.root_dir))}"
    folder = f"files/{out.hash_info.name}/" if out.hash_info.name == "md5" else ""
    return f"{remote['url']}/{folder}{out.hash_info.value[:2]}/{out.hash_info.value[2:]}"


def _source(path: str, item: Any, origin: str | None = None, description: str | None = None) -> DvcSource:
    now = _hash(item)
    meta = None if now == "missing" else item.get_meta()
    return DvcSource(path, now, origin, description, size=meta and meta.size, files=meta and meta.nfiles)


def _plain(record: Any) -> Any:
    """A record of plain JSON types, so that its hash is that of what was written and read again."""
    return json.loads(json.dumps(record, default=str))


def _lock_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of dvc.lock without what pushing to a `version_aware` remote adds; a folder's files become its hash."""

    def plain(item: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in item.items() if name not in {"cloud", "files"}}
        if files := item.get("files"):
            tree = Tree.from_list([{k: v for k, v in file.items() if k != "cloud"} for file in files], hash_name="md5")
            tree.digest()
            size = sum(file.get("size", 0) for file in files)
            kept |= {"md5": tree.hash_info.value, "size": size, "nfiles": len(files)}
        return kept

    sides = {side: [plain(item) for item in entry[side]] for side in ("deps", "outs") if side in entry}
    return {**entry, **sides}


@dataclass(frozen=True)
class _Reader:
    """Turns DVC's stages into `DvcStage`.

    Attributes:
        root: the project's root.
        makers: path of each output to the target of its stage.
        deps: path of each dependency to one of those that are it.
        tracked: what `dvc add` and `dvc import` track: its path to its stage and output.
        drifted: outputs that are not what dvc.lock says.
    """

    root: Path
    makers: Mapping[str, str]
    deps: Mapping[str, Any]
    tracked: Mapping[str, tuple[Any, Any]]
    drifted: frozenset[str]

    def sources(self, stages: Iterable[DvcStage]) -> dict[str, DvcSource]:
        """The data that no stage makes, whether a stage reads it or not."""
        found = {i.path: _source(i.path, self.deps[i.path]) for stage in stages for i in stage.sources}
        for path, (stage, out) in self.tracked.items():
            origin = " ".join(str(dep) for dep in stage.deps) or None
            found[path] = _source(path, out, origin, out.annot.desc or stage.desc)
        return dict(sorted(found.items()))

    def stage(self, stage: Any) -> DvcStage:
        settings = (stage.meta or {}).get("dagster", {})
        lock = stage.lock_entry
        files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        sources = (*self.tracked, *settings.get("sources", []))
        data = [dep for dep in files if _within(_path(dep, self.root), (*self.makers, *sources))]
        outputs = tuple(self._output(out, known=lock is not None) for out in stage.outs)
        inputs = tuple(self._input(dep, frozen=stage.frozen) for dep in data)
        recipe, locked = self._recipes(stage, [dep for dep in stage.deps if dep not in data], lock)
        drift = {out.path: out.drift for out in outputs if out.drift}
        # An input that its maker did not make: Dagster sees it in no version, so it counts with the code.
        drift |= {i.path: i.now for i in inputs if i.changed and i.maker and _within(i.path, self.drifted)}
        folder = Path(os.path.relpath(stage.path, self.root)).parent.as_posix()
        plain = _plain(
            {
                "settings": settings,
                "recipe": recipe | ({"drift": drift} if drift and lock is not None else {}),
                "locked_recipe": locked if lock is not None else None,
                "lock": None if lock is None else _lock_entry(lock),
            }
        )
        return DvcStage(
            name=str(stage.name),
            target=_target(stage, self.root),
            folder="" if folder == "." else folder,
            command=stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd),
            description=stage.desc,
            **plain,
            inputs=inputs,
            outputs=outputs,
        )

    def _recipes(self, stage: Any, deps: list[Any], lock: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Command, parameters and code: as they are now, and as of the last run."""
        locked: dict[str, Any] = {"cmd": (lock or {}).get("cmd")}
        recipe: dict[str, Any] = {"cmd": stage.cmd}
        for dep in deps:
            path = _path(dep, self.root)
            locked[path] = dep.hash_info.value
            recipe[path] = locked[path] if stage.frozen or not dep.status() else _hash(dep)
        if stage.always_changed or stage.is_callback:
            recipe["always changed"] = True
        return recipe, locked

    def _input(self, dep: Any, *, frozen: bool) -> DvcInput:
        path = _path(dep, self.root)
        maker = _within(path, self.makers)
        return DvcInput(
            path=path,
            maker=self.makers[maker] if maker else None,
            read=dep.hash_info.value,
            now=_hash(dep),
            changed=not frozen and bool(dep.status()),
        )

    def _output(self, out: Any, *, known: bool) -> DvcOutput:
        drift = _status(out) if known else None
        return DvcOutput(
            path=_path(out, self.root),
            metric=bool(out.metric),
            plot=bool(out.plot),
            drift=f"{drift} {_hash(out)}" if drift else None,
            uri=_uri(out),
        )
