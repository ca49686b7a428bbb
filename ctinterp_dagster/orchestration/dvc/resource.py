"""Runs DVC for Dagster: one stage, in a process group of its own, with live logs and errors that say what happened."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any

import dagster as dg
from dagster import PipesEnvContextInjector, PipesTempFileMessageReader, open_pipes_session

from ctinterp_dagster.orchestration.dvc.metadata import live_metadata
from ctinterp_dagster.orchestration.dvc.stage import DvcStage

_GUARD = Path(__file__).with_name("guard.py")
_LOOK_S = 1.0  # what a stage says through Pipes is looked for at each line that it prints, and this often
_TAIL_LINES = 40
_BUSY = "is busy, it is being blocked by:"  # dvc/rwlock.py; `--wait-for-lock` does not wait for this lock
_BUSY_WAIT_S = 2.0
_SKIPPED = ("didn't change, skipping", "is cached - skipping run, checking out outputs")  # dvc/stage


@dataclass(frozen=True)
class DvcRun:
    """What came of a stage.

    Attributes:
        ran: False when DVC found it unchanged, or took its outputs from the run cache.
        duration_s: wall clock, waiting included.
        metadata: what the stage reported through Dagster Pipes.
    """

    ran: bool
    duration_s: float
    metadata: Mapping[str, Any]


class DvcCliResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The `dvc` command line of one project.

    Attributes:
        project_dir: the project's root.
        grace_s: seconds between SIGTERM and SIGKILL when a run is ended.
        busy_timeout_s: seconds to wait for another DVC process that holds the stage's files.
    """

    project_dir: str
    grace_s: float = 10.0
    busy_timeout_s: float = 3600.0

    def repro(
        self, context: dg.AssetExecutionContext, stage: DvcStage, key: dg.AssetKey, *, force: bool = False
    ) -> DvcRun:
        """Run `dvc --wait-for-lock repro --single-item <stage>`; each line it prints becomes a log event.

        The stage finds Dagster Pipes in its environment if its `meta.dagster.pipes` is true. Each mapping that it gives
        to `report_custom_message` becomes an observation of the asset `key` at once: numbers are plotted over time,
        paths of PNG files shown. If this process ends, or the run is terminated, the stage's process group ends too.

        Raises:
            dg.Failure: the stage failed, or its files stayed busy.
        """
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
        command += [*(["--force"] if force else []), stage.target]
        start = time.monotonic()
        with self._pipes(context, key, enabled=bool(stage.settings.get("pipes"))) as (variables, metadata, watch):
            lines, code = self._run(context, command, variables, watch)
            while code and _holder(lines):
                context.log.warning("%s waits: its files are in use by %s", stage.target, _holder(lines))
                if time.monotonic() - start > self.busy_timeout_s:
                    raise dg.Failure(
                        f"{stage.target} did not run: for {self.busy_timeout_s:g} s its files were in use by "
                        f"{_holder(lines)}; wait for it or end it, then materialize again"
                    )
                time.sleep(_BUSY_WAIT_S)
                lines, code = self._run(context, command, variables, watch)
        if code:
            raise _failure(stage, lines, code)
        ran = not any(line.endswith(_SKIPPED) or _SKIPPED[1] in line for line in lines)
        return DvcRun(ran=ran, duration_s=time.monotonic() - start, metadata=metadata)

    def _run(
        self,
        context: dg.AssetExecutionContext,
        command: list[str],
        variables: Mapping[str, str],
        watch: Callable[[], None],
    ) -> tuple[list[str], int]:
        """Run a command under the guard; the last lines that it printed, and its exit code.

        `watch` is called at each line, and every second without one.
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with subprocess.Popen(
            [sys.executable, str(_GUARD), str(self.grace_s), *command],
            cwd=self.project_dir,
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
                for line in _arriving(process.stdout):
                    if text := line.rstrip():
                        tail.append(text)
                        context.log.info(text)
                    watch()
            finally:
                process.stdin.close()  # the guard ends the group, if there still is one
                code = process.wait()
        return list(tail), code

    @contextmanager
    def _pipes(
        self, context: dg.AssetExecutionContext, key: dg.AssetKey, *, enabled: bool
    ) -> Iterator[tuple[Mapping[str, str], dict[str, Any], Callable[[], None]]]:
        """A Pipes session: its environment, the metadata reported (filled at its end), and what to call meanwhile.

        The last shows what the stage has said since it was called last.
        """
        metadata: dict[str, Any] = {}
        if not enabled:
            yield {}, metadata, lambda: None
            return
        shown = 0
        with open_pipes_session(context, PipesEnvContextInjector(), PipesTempFileMessageReader()) as session:

            def watch() -> None:
                nonlocal shown
                for message in session.get_custom_messages()[shown:]:
                    shown += 1
                    values = live_metadata(message, Path(self.project_dir))
                    context.log_event(dg.AssetObservation(key, metadata=values))

            yield session.get_bootstrap_env_vars(), metadata, watch
        watch()
        for result in session.get_reported_results():
            if isinstance(result, dg.MaterializeResult):
                metadata |= dict(result.metadata or {})


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


def _failure(stage: DvcStage, lines: list[str], code: int) -> dg.Failure:
    """The failure of a stage: its own last message first, then the last lines of its output."""
    commands = [number for number, line in enumerate(lines) if line.startswith("> ")]
    printed = lines[commands[-1] + 1 :] if commands else []
    own = [line for line in printed if not line.startswith("ERROR: failed to reproduce")]
    verdict = next((line for line in reversed(lines) if line.startswith("ERROR: ")), "no output")
    message = own[-1].strip() if own else verdict
    tail = "\n".join(lines)
    return dg.Failure(
        f"{stage.target} failed: {message}\n\n{tail}",
        metadata={"dvc/exit_code": code, "dvc/output": dg.MetadataValue.md(f"```\n{tail}\n```")},
    )
