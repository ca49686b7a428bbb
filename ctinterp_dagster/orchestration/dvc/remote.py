"""A DVC project in a Git repository elsewhere: cloned beside the state of its component."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from .project import DvcProject
from .stage import DvcProjectError


@dataclass
class RemoteGitDvcProject(dg.Resolvable):
    """Where the project is.

    Its runs work in the clone: give the component `cli_args: [repro, --single-item, --pull]`, so that DVC brings what a
    stage reads from the DVC remote.

    Attributes:
        repo_url: any that `git clone` takes; credentials are Git's own affair.
        repo_relative_path: the folder of the project in the repository.
        branch: the branch or tag; the repository's own default without one.
    """

    repo_url: str
    repo_relative_path: str = "."
    branch: str | None = None

    @property
    def name(self) -> str:
        """The repository's name, and the branch if there is one."""
        name = Path(self.repo_url.rstrip("/")).name.removesuffix(".git")
        return f"{name}@{self.branch}" if self.branch else name

    def refresh(self, folder: Path) -> None:
        """Clone the repository into a folder, or bring the clone that is there up to date.

        Args:
            folder: of the clone.

        Raises:
            DvcProjectError: Git fails; what runs changed in the clone may be in the way.
        """
        if (folder / ".git").exists():
            _git("-C", str(folder), "pull", "--quiet", "--ff-only")
        else:
            branch = ["--branch", self.branch] if self.branch else []
            _git("clone", "--quiet", *branch, "--", self.repo_url, str(folder))

    def at(self, folder: Path) -> DvcProject:
        """The project in the clone."""
        return DvcProject.at(folder / self.repo_relative_path)


def _git(*arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607 (the Git that DVC uses)
    if done.returncode:
        raise DvcProjectError(f"git {arguments[0] if arguments[0] != '-C' else arguments[2]}: {done.stderr.strip()}")
