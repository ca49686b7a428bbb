"""What a retraining ends in: `dvc push`, a commit of the state that ran, and a tag for a promoted model."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ctinterp_dagster.champion import Registry, card
from ctinterp_dagster.decision import Decision, read_record
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.settings import Publish

PUBLISHED = dg.AssetKey("published")


def build_published(root: Path, settings: Publish) -> dg.AssetsDefinition:
    """The asset that follows report and promote."""

    @dg.asset(
        key=PUBLISHED,
        deps=["report", "promote"],
        group_name="release",
        kinds={"git", "dvc"},
        pool="dvc",
        description="`dvc push`, if operate.yaml says so; the state that ran as a commit, a promoted model as a tag.",
    )
    def published(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        decision = read_record(Decision, Layout(root).report("promote") / "decision.json")
        verdict = "promoted" if decision.promoted else "refused"
        if settings.push:  # first: a remote that keeps versions has them written to dvc.lock, which is then committed
            context.log.info(_run(root, sys.executable, "-m", "dvc", "push"))
        commit = commit_to(root, settings.branch, f"retrain: challenger {decision.challenger[:16]} {verdict}")
        metadata: dict[str, dg.MetadataValue] = {
            "commit": dg.MetadataValue.text(commit),
            "branch": dg.MetadataValue.text(settings.branch),
            "decision": dg.MetadataValue.text(verdict),
        }
        champion = Registry(Layout(root).promote).champion
        if champion:
            text = card(champion, commit)
            metadata["card"] = dg.MetadataValue.md(text)
            if settings.tag and decision.promoted and champion.model_hash == decision.challenger:
                metadata["tag"] = dg.MetadataValue.text(tag(root, f"champion-{champion.name}", commit, text))
        return dg.MaterializeResult(metadata=metadata)

    return published


def commit_to(root: Path, branch: str, message: str) -> str:
    """Commit every tracked file as it is, dvc.lock and all reports to a branch.

    Another branch than that leaves the one that is checked out, its index and its files as they are.

    Args:
        root: of the Git repository.
        branch: made where there is none.
        message: of the commit.

    Returns:
        The commit's hash, new or of before.
    """
    head = _run(root, "git", "rev-parse", "HEAD")
    reference = f"refs/heads/{branch}"
    tip = _run(root, "git", "for-each-ref", "--format=%(objectname)", reference) or head
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        _run(root, "git", "read-tree", head, environment=index)
        _run(root, "git", "add", "--update", environment=index)
        made = [name for name in ("dvc.lock", "data/raw.dvc", "reports") if (root / name).exists()]
        _run(root, "git", "add", "--all", "--", *made, environment=index)
        tree = _run(root, "git", "write-tree", environment=index)
    if tree == _run(root, "git", "rev-parse", f"{tip}^{{tree}}"):
        commit = tip
    else:
        parents = [tip] if _is_ancestor(root, head, tip) else [head] if _is_ancestor(root, tip, head) else [tip, head]
        named = [word for parent in parents for word in ("-p", parent)]
        commit = _run(root, "git", "commit-tree", tree, *named, "-m", message)
    _run(root, "git", "update-ref", reference, commit)
    if _run(root, "git", "rev-parse", "--abbrev-ref", "HEAD") == branch:
        _run(root, "git", "reset", "--quiet")  # the index follows the branch; files stay
    return commit


def tag(root: Path, name: str, commit: str, message: str) -> str:
    """Tag a commit, unless the tag is there.

    Args:
        root: of the repository.
        name: of the tag.
        commit: its hash.
        message: of the tag.

    Returns:
        The name of the tag.
    """
    if not _run(root, "git", "tag", "--list", name):
        _run(root, "git", "tag", "--annotate", "--cleanup=verbatim", "-m", message, name, commit)
    return name


def _is_ancestor(root: Path, older: str, newer: str) -> bool:
    return _run(root, "git", "merge-base", older, newer) == older


def _run(root: Path, *command: str, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Args:
        root: the folder in which it runs.
        *command: the program and its arguments.
        environment: variables beside those of this process.

    Returns:
        Its standard output, without spaces at the ends.

    Raises:
        Failure: it failed.
    """
    known = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=root, env=known, capture_output=True, text=True, check=False)
    if done.returncode:
        raise dg.Failure(f"`{' '.join(command[:3])}` failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()
