"""One command of DVC: a process group of its own, live logs, Dagster events, errors that say what happened."""

import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, NoReturn

import dagster as dg

from .asset_checks import check_results
from .metadata import stage_metadata
from .pipes import stage_pipes
from .project import DvcProject
from .provenance import kept_metadata, provenance_tags
from .sensor import lock_events
from .stage import DvcIndex, DvcProjectError, DvcStage
from .translator import DvcTranslator

_GUARD = Path(__file__).with_name("guard.py")
_LOOK_S = 1.0  # what a stage says through Pipes is looked for at each line that it prints, and this often
_TAIL_LINES = 40
_BUSY = "is busy, it is being blocked by:"  # dvc/rwlock.py; `--wait-for-lock` does not wait for this lock
_BUSY_WAIT_S = 2.0
_BEGINS = re.compile(r"Running stage '(.+)':$|Stage '(.+)' (?:didn't change, skipping$|is cached - skipping run)")
# What DVC says to somebody at a terminal (dvc/repo/scm_context.py, dvc/commands/repro.py); no option silences it alone.
_ADVICE = re.compile(
    r"To track the changes with git, run:$|\tgit add |To enable auto staging, run:$|\tdvc config core\.autostage true$"
    r"|Use `dvc push` to send your updates to remote storage\.$"
)


@dataclass(frozen=True)
class EndedStage:
    """A stage that a command of DVC came to.

    Attributes:
        target: its name in DVC.
        ran: whether its command did; else DVC skipped it.
        duration_s: how long it took.
        reported: metadata of its own, where it speaks to Dagster while it runs.
    """

    target: str
    ran: bool
    duration_s: float = 0.0
    reported: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """Of its event: what it said, `dvc/ran` and `dvc/duration_s`."""
        return {**self.reported, "dvc/ran": self.ran, "dvc/duration_s": round(self.duration_s, 2)}


@dataclass
class DvcInvocation:
    """A command of DVC that has not run yet: `wait` or `stream` runs it.

    Attributes:
        arguments: the words after `dvc` at the command line.
        project: where it runs.
        grace_s: seconds between SIGTERM and SIGKILL when it is ended.
        busy_timeout_s: seconds to wait for another DVC process that holds the files of a stage.
        context: of the op or asset that runs it; None outside Dagster.
        translator: the one that the assets were built with.
        stages: those that the step was asked for; read from the project where they are not given.
        over: whether the command has ended.
    """

    arguments: Sequence[str]
    project: DvcProject
    grace_s: float
    busy_timeout_s: float
    context: Any = None
    translator: DvcTranslator = field(default_factory=DvcTranslator)
    stages: Sequence[DvcStage] | None = None
    over: bool = False

    def wait(self) -> None:
        """Run it; each line that it prints becomes a log event.

        Raises:
            dg.Failure: it failed, or the files of a stage stayed in use.
        """
        for _ in self._stages():
            pass

    def stream(self) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization]:  # type: ignore[type-arg] # of no value
        """Run it.

        A stage that the step was asked for becomes a `MaterializeResult` with its checks; several partitions of one
        asset become one. In an op, what else the command changed (by `dvc pull`, say) comes at the end, as an
        `AssetMaterialization` each.

        Yields:
            An event a stage as it ends, with the versions, metrics and plots of dvc.lock.

        Raises:
            dg.Failure: it failed, or the files of a stage stayed in use.
            DvcProjectError: there is no context.
        """
        if self.context is None:
            raise DvcProjectError("stream() gives events of a step: call dvc.cli(arguments, context=context)")
        waiting = self._waiting()
        ended: list[EndedStage] = []
        after = None
        talks = [key for key, stages in waiting.items() if len(waiting) == len(stages) == 1 and stages[0].pipes]
        for last in self._stages(*talks):
            ended.append(last)
            if not last.ran and not self.over:
                continue  # those that DVC skips come at a blow: they wait for the next look at the project
            read = self.project.read()
            after = read if self.over else None
            for key, stages in list(waiting.items()):
                own = {stage.target for stage in stages}
                if own <= {one.target for one in ended}:
                    del waiting[key]
                    yield from self._results(read, key, [one for one in ended if one.target in own])
        yield from self._others(after or self.project.read())

    def skip(self, index: DvcIndex) -> Iterator[dg.MaterializeResult | dg.AssetMaterialization]:  # type: ignore[type-arg] # of no value
        """The events that `stream` would give if DVC found nothing to do, without starting it.

        Args:
            index: the project as it is, in which none of the stages has changed.

        Yields:
            The result of each asset, and what other stages left.
        """
        for key, stages in self._waiting().items():
            for stage in stages:
                self.context.log.info("Stage '%s' didn't change, skipping", stage.target)
            yield from self._results(index, key, [EndedStage(stage.target, ran=False) for stage in stages])
        yield from self._others(index)

    def _waiting(self) -> dict[dg.AssetKey, list[DvcStage]]:
        """The stages that the step was asked for, by asset."""
        waiting: dict[dg.AssetKey, list[DvcStage]] = {}
        for stage in self._asked() if self.stages is None else self.stages:
            waiting.setdefault(self.translator.get_asset_key(stage), []).append(stage)
        return waiting

    def _asked(self) -> list[DvcStage]:
        """The stages of the assets that the step was asked for, and of the partitions."""
        if not self.context.has_assets_def:
            return []
        keys, partitions = self.context.selected_asset_keys, asked_partitions(self.context)
        stages = self.project.read().stages.values()
        return [s for s in stages if self.translator.get_asset_key(s) in keys and s.partition in partitions]

    def _results(self, after: DvcIndex, key: dg.AssetKey, ended: Sequence[EndedStage]) -> Iterator[Any]:
        """The event of the stages of one asset.

        Of several partitions Dagster makes one alike for each: those of their own follow.

        Args:
            after: the project once the stages have ended.
            key: of the asset.
            ended: its stages.

        Yields:
            One result; the events of the asset's other partitions are logged.
        """
        root = self.project.root
        checks = {check.name for check in self.context.selected_asset_check_keys if check.asset_key == key}
        made = [(after.stages[one.target], one) for one in ended]
        events = [
            dg.AssetMaterialization(
                key,
                partition=stage.partition,
                tags=provenance_tags(stage, after.stages, self.translator),
                # What the stage says of itself, now or when it ran, stands first.
                metadata={
                    **({} if one.ran else kept_metadata(stage, self.context.instance, key)),
                    **one.metadata,
                    **stage_metadata(stage, root),
                    **one.metadata,
                },
            )
            for stage, one in made
        ]
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(str(made[0][0].data_version)),  # later stages of a step look here
            tags=events[0].tags,
            metadata=events[0].metadata,
            check_results=[c for c in check_results([s for s, _ in made], root) if c.check_name in checks],
        )
        for event in events[1:]:
            self.context.log_event(event)

    def _others(self, after: DvcIndex) -> Iterator[dg.AssetMaterialization]:
        """What the command changed beside the stages that the step was asked for: of an op events, else records."""
        instance = self.context.instance
        for event in lock_events(after, self.project, self.translator, instance):
            if isinstance(event, dg.AssetMaterialization) and not self.context.has_assets_def:
                yield event
            else:
                instance.report_runless_asset_event(event)

    def _stages(self, *talks: dg.AssetKey) -> Iterator[EndedStage]:
        """Run it until nothing is in use.

        Args:
            talks: the asset of its only stage, if that speaks to Dagster while it runs.

        Yields:
            Each stage as it ends.

        Raises:
            Failure: DVC failed, or waited too long for files in use.
        """
        log = self.context.log if self.context else dg.get_dagster_logger()
        start = time.monotonic()
        while True:
            lines, code = yield from self._attempt(log, *talks)
            if not code:
                return
            holder = _holder(lines)
            if holder is None:
                _fail(self.arguments, lines)
            log.warning("%s waits: its files are in use by %s", self.arguments[-1], holder)
            if time.monotonic() - start > self.busy_timeout_s:
                raise dg.Failure(
                    f"{self.arguments[-1]} did not run: for {self.busy_timeout_s:g} s its files were in use by "
                    f"{holder}; wait for it or end it, then materialize again"
                )
            time.sleep(_BUSY_WAIT_S)

    def _attempt(self, log: Any, *talks: dg.AssetKey) -> Generator[EndedStage, None, tuple[list[str], int]]:
        """Run it once: each stage as it ends, at last the last lines that it printed and its exit code."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        begun, since = None, time.monotonic()
        self.over = False
        with ExitStack() as stack:
            pipes = [stack.enter_context(stage_pipes(self.context, key, self.project.root)) for key in talks]
            printed = self._print({name: value for session in pipes for name, value in session.variables.items()})
            while True:
                try:
                    text = next(printed).rstrip()
                except StopIteration as end:
                    code = int(end.value)
                    break
                for session in pipes:
                    session.watch()
                if not text or _ADVICE.match(text):
                    continue
                tail.append(text)
                log.info(text)
                if match := _BEGINS.match(text):
                    if begun:
                        yield replace(begun, duration_s=time.monotonic() - since)
                    begun, since = EndedStage(match[1] or match[2], ran=match[1] is not None), time.monotonic()
        self.over = True
        if begun and not code:
            reported = {name: value for session in pipes for name, value in session.metadata.items()}
            yield replace(begun, duration_s=time.monotonic() - since, reported=reported)
        return list(tail), code

    def _print(self, variables: Mapping[str, str]) -> Generator[str, None, int]:
        """Run it under the guard: its lines as they come, an empty one each second without; at last its exit code."""
        with subprocess.Popen(
            [sys.executable, str(_GUARD), str(self.grace_s), sys.executable, "-P", "-m", "dvc", *self.arguments],
            cwd=self.project.root,
            env={**os.environ, **_environment(), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield from _arriving(process.stdout)
            finally:
                process.stdin.close()  # the guard ends the group, if there still is one
                code = process.wait()
        return code


def asked_partitions(context: dg.AssetExecutionContext) -> set[str | None]:
    """The partitions that a step was asked for; with None, which stands for what has none."""
    partitioned = context.has_partition_key or context.has_partition_key_range
    return {None, *(context.partition_keys if partitioned else ())}


def _arriving(stream: IO[str]) -> Iterator[str]:
    """The lines of a stream as they come, and an empty one for each second without."""
    lines: SimpleQueue[str | None] = SimpleQueue()

    def forward() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    Thread(target=forward, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_LOOK_S)
        except Empty:
            yield ""
            continue
        if line is None:
            return
        yield line


def _environment() -> dict[str, str]:
    """So that `python` in a stage's command is the Python that runs Dagster, and lines arrive as they are printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def _holder(lines: list[str]) -> str | None:
    """Who holds the lock that DVC could not have, as DVC names it: `(PID 12): dvc repro`; None if it was no lock."""
    for number, line in enumerate(lines):
        if _BUSY in line:
            return "; ".join(text.strip() for text in lines[number + 1 :] if text.strip().startswith("(PID"))
    return None


def _fail(arguments: Sequence[str], lines: list[str]) -> NoReturn:
    """Say how a command failed.

    Args:
        arguments: of DVC.
        lines: what it printed.

    Raises:
        Failure: the stage's own last message first, then the last lines of the output.
    """
    stages = [number for number, line in enumerate(lines) if _BEGINS.match(line)]
    begun = _BEGINS.match(lines[stages[-1]]) if stages else None
    commands = [number for number, line in enumerate(lines) if line.startswith("> ")]
    printed = lines[commands[-1] + 1 :] if commands else []
    own = [line for line in printed if not line.startswith("ERROR: failed to reproduce")]
    verdict = next((line for line in reversed(lines) if line.startswith("ERROR: ")), "no output")
    message = own[-1].strip() if own else verdict
    tail = "\n".join(lines)
    name = (begun[1] or begun[2]) if begun else arguments[-1]
    raise dg.Failure(
        f"{name} failed: {message}\n\n{tail}", metadata={"dvc/output": dg.MetadataValue.md(f"```\n{tail}\n```")}
    )
