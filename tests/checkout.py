"""A clone of the committed state with the smoke preset: what the reproduction and the fault tests run."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
GIT_IDENTITY = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
STAGES = tuple(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


@dataclass(frozen=True)
class Checkout:
    """A project folder of its own, with the Python of the tests and nothing of the user's settings.

    Attributes:
        root: the project's root.
        variables: environment variables beyond those that every checkout has.
        prefix: words before each command, e.g. `taskset -c 0`.
    """

    root: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()

    @classmethod
    def clone(cls, root: Path, variables: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> "Checkout":
        """Clone HEAD of this repository and write the smoke preset."""
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        made = cls(root, variables or {}, prefix)
        made.run("ctinterp", "preset", "smoke")
        return made

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a command finds."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DAGSTER", "DVC", "GIT"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc" / "tmp" / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(self.root / ".dvc" / "tmp" / "global"),
            **{
                f"GIT_{who}_{what}": "smoke@example.org"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            **self.variables,
        }

    def start(self, *command: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start a command in a session of its own, its output in a file."""
        with log.open("wb") as handle:
            return subprocess.Popen(
                [*self.prefix, *command],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def attempt(self, *command: str) -> tuple[int, str]:
        """Run a command; its exit code and all that it printed."""
        done = subprocess.run(
            [*self.prefix, *command],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def run(self, *command: str) -> str:
        """Run a command that must succeed; what it printed."""
        code, shown = self.attempt(*command)
        assert code == 0, f"{' '.join(command)} exited {code}:\n{shown[-4000:]}"
        return shown

    def hashes(self) -> dict[str, str]:
        """Every hash of dvc.lock, of inputs and outputs, by stage and path."""
        stages = yaml.safe_load((self.root / "dvc.lock").read_text())["stages"]
        return {
            f"{stage} {kind} {entry['path']}": entry["md5"]
            for stage, lock in stages.items()
            for kind in ("deps", "outs")
            for entry in lock.get(kind, [])
        }

    def files(self) -> dict[str, bytes]:
        """What the stages report into Git, by path."""
        paths = sorted((self.root / "reports").rglob("*"))
        kept = [path for path in paths if path.is_file() and path.name != "provenance.json"]
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in kept}
