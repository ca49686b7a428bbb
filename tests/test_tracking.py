"""data/raw under DVC: what a copy and a clone of the project get, what two share, and what is refused."""

import csv
import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctinterp_dagster import tracking
from ctinterp_dagster.errors import CtinterpError, MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.dvc import DvcProject
from ctinterp_dagster.tracking import Listing, assert_tracked, listing, recorded, track
from tests.cli.conftest import run
from tests.shell import shell

DVC_YAML = """
stages:
  ingest:
    cmd: 'mkdir -p data/ingest; ls data/raw > data/ingest/names; echo "rows: $(ls data/raw | wc -l)" > rows.yaml'
    deps: [data/raw]
    params: [seed]
    outs: [data/ingest: {persist: true}]
    metrics: [rows.yaml: {cache: false}]
"""
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DVC and Git leave the machine's own settings alone."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_NAME", "toy")
            patch.setenv(f"GIT_{who}_EMAIL", "toy@example.org")
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(home / "site"))
        patch.setenv("DVC_GLOBAL_CONFIG_DIR", str(home / "global"))
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with this repository's rules of what Git and DVC leave out, committed before any scan."""
    root = tmp_path_factory.mktemp("template") / "project"
    (root / "data" / "raw").mkdir(parents=True)
    for name in (".gitignore", ".gitattributes", ".dvcignore", "data/raw/.gitignore"):
        (root / name).write_text((ROOT / name).read_text())
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("seed: 1\n")
    shell(root, "git", "init", "--quiet")
    shell(root, "dvc", "init", "--quiet")
    shell(root, "dvc", "repro", "--quiet")
    shell(root, "git", "add", "--force", "data/raw/.gitignore")
    shell(root, "git", "add", "--all")
    shell(root, "git", "commit", "--quiet", "--message", "empty")
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A copy of the template."""
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    return Layout(root)


def added(project: Layout, *names: str) -> None:
    """Write scans and track them; DVC runs in this process, which spares its start."""

    def here(layout: Layout, *command: str) -> None:
        if command[0] == sys.executable:
            shell(layout.root, *command[2:])
        else:
            started(layout, *command)

    for name in names:
        (project.raw / name).write_text(name)
    started = tracking._run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "_run", here)
        track(project)


def test_scans_are_dvc_s_and_no_scan_is_git_s(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root.parent / "a.nii").write_text("a")
    assert run(monkeypatch, "scans", "add", project.root.parent / "a.nii") == 0
    assert "1 added to data/raw, which holds 1 files" in capsys.readouterr().out
    assert recorded(project) == listing(project.raw) == Listing(1, 1)
    staged = shell(project.root, "git", "status", "--porcelain").splitlines()
    assert staged == ["A  data/raw.dvc", "D  data/raw/.gitignore"]
    (project.raw / "b.nii").write_text("bb")
    assert run(monkeypatch, "scans", "add") == 0
    assert recorded(project) == Listing(2, 3)


def test_a_commit_is_asked_for_where_there_is_one_to_make(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = project.root.parent / "a.nii"
    scan.write_bytes(b"one")
    for added, asked in ((1, True), (0, False)):
        assert run(monkeypatch, "scans", "add", scan) == 0
        out = capsys.readouterr().out
        assert (f"{added} added" in out, "next: `git commit` data/raw.dvc" in out) == (True, asked), out
    (project.raw / "a.nii").write_bytes(b"two")
    assert run(monkeypatch, "scans", "add") == 0
    assert "next: `git commit` data/raw.dvc" in capsys.readouterr().out


def test_a_clone_gets_the_scans_with_dvc_pull_and_is_up_to_date(project: Layout) -> None:
    added(project, "a.nii", "b.nii")
    shell(project.root, "dvc", "repro", "--quiet")
    shell(project.root, "git", "add", "--all")
    shell(project.root, "git", "commit", "--quiet", "--message", "scans")
    clone = project.root.parent / "clone"
    shell(project.root.parent, "git", "clone", "--quiet", str(project.root), str(clone))
    shell(clone, "dvc", "remote", "add", "--quiet", "--default", "store", str(project.root / ".dvc" / "cache"))
    shell(clone, "dvc", "pull", "--quiet")
    assert sorted(path.name for path in (clone / "data" / "raw").iterdir()) == ["a.nii", "b.nii"]
    assert shell(clone, "dvc", "status") == "Data and pipelines are up to date.\n"


@pytest.mark.parametrize("way", [["--temp"], pytest.param(["--queue"], marks=pytest.mark.slow)])
def test_an_experiment_in_a_copy_reads_the_scans_of_the_checkout(project: Layout, way: list[str]) -> None:
    added(project, "a.nii", "b.nii")
    shell(project.root, "git", "commit", "--quiet", "--message", "scans")
    (project.raw / "c.nii").write_text("by hand")
    shell(project.root, "dvc", "exp", "run", *way, "--name", "other", "--set-param", "seed=2")
    if way == ["--queue"]:
        shell(project.root, "dvc", "exp", "run", "--run-all")
    shown = csv.DictReader(shell(project.root, "dvc", "exp", "show", "--csv").splitlines())
    assert [row["rows"] for row in shown if row["Experiment"] == "other"] == ["3"]


def test_scans_that_are_put_in_or_taken_out_by_hand_are_found_by_dvc_repro(project: Layout) -> None:
    added(project, "a.nii", "b.nii")
    for change, left in ((lambda: (project.raw / "c.nii").write_text("c"), 3), ((project.raw / "a.nii").unlink, 2)):
        change()
        with pytest.raises(MissingInputError, match="run `ctinterp scans add`"):
            assert_tracked(project)
        shell(project.root, "dvc", "repro", "--quiet")
        assert_tracked(project)
        assert recorded(project).files == left
        assert (project.root / "rows.yaml").read_text() == f"rows: {left}\n"


def test_scans_that_were_never_added_are_refused_and_none_is_no_fault(project: Layout) -> None:
    assert_tracked(project)
    (project.raw / ".copying.nii").write_text("half")
    assert_tracked(project)
    (project.raw / "a.nii").write_text("a")
    with pytest.raises(MissingInputError, match=r"holds 1 files of 1 bytes, data/raw\.dvc knows none"):
        assert_tracked(project)


def test_an_empty_folder_of_a_project_with_scans_is_refused(project: Layout) -> None:
    added(project, "a.nii")
    (project.raw / "a.nii").unlink()
    with pytest.raises(MissingInputError, match=r"mount it.*`git checkout data/raw.dvc` and `dvc pull`"):
        assert_tracked(project)
    shell(project.root, "dvc", "repro", "--quiet")  # which writes down that it is empty
    with pytest.raises(MissingInputError, match="mount it"):
        assert_tracked(project)


def names(project: Layout) -> list[str]:
    return sorted(path.name for path in project.raw.iterdir())


def assert_whole(cache: Path) -> None:
    """Every object is what its name says, and nobody may write to it."""
    objects = [path for path in (cache / "files" / "md5").glob("*/*") if path.is_file()]
    assert objects
    for path in objects:
        assert hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name.removesuffix(".dir")
        assert path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize(
    "types", ["reflink,hardlink,copy", *(pytest.param(one, marks=pytest.mark.slow) for one in ("hardlink", "symlink"))]
)
def test_two_checkouts_share_a_cache_and_lose_nothing(project: Layout, types: str) -> None:
    """One adds, the other takes that over and adds more, each runs, one clears up, and the two merge."""
    cache = project.root.parent / "cache"
    clone = Layout(project.root.parent / "clone")
    shell(project.root.parent, "git", "clone", "--quiet", str(project.root), str(clone.root))
    for one in (project, clone):
        shell(one.root, "dvc", "cache", "dir", "--local", str(cache))
        shell(one.root, "dvc", "config", "--local", "cache.shared", "group")
        shell(one.root, "dvc", "config", "--local", "cache.type", types)
    driver = f"{sys.executable} -m dvc git-hook merge-driver --ancestor %O --our %A --their %B"
    shell(clone.root, "git", "config", "merge.dvc.driver", driver)

    def run_and_commit(one: Layout) -> None:
        shell(one.root, "dvc", "repro", "--quiet")
        shell(one.root, "git", "add", "--all")
        shell(one.root, "git", "commit", "--quiet", "--message", "scans")

    added(project, "a.nii", "b.nii")
    run_and_commit(project)
    shell(clone.root, "git", "pull", "--quiet")
    shell(clone.root, "dvc", "checkout", "--quiet")
    assert names(clone) == ["a.nii", "b.nii"]
    assert shell(clone.root, "dvc", "status") == "Data and pipelines are up to date.\n"
    added(clone, "c.nii")
    added(project, "d.nii")
    run_and_commit(clone)
    run_and_commit(project)
    assert not DvcProject(project.root).read().stages["ingest"].changed  # what the sensor asks: no run of the other's
    shell(project.root, "dvc", "gc", "--quiet", "--force", "--all-commits", "--projects", str(clone.root))
    for one, own in ((project, "d.nii"), (clone, "c.nii")):
        assert names(one) == ["a.nii", "b.nii", own]
        assert [(one.raw / name).read_text() for name in names(one)] == names(one)
        assert shell(one.root, "dvc", "status") == "Data and pipelines are up to date.\n"
        assert (one.ingest / "names").read_text().split() == names(one)
    shell(clone.root, "git", "pull", "--quiet", "--no-rebase", "--strategy-option", "ours")
    shell(clone.root, "dvc", "checkout", "--quiet", "data/raw")
    assert names(clone) == ["a.nii", "b.nii", "c.nii", "d.nii"]
    run_and_commit(clone)
    assert_whole(cache)


@pytest.mark.slow
def test_scans_outlive_a_clearing_up_that_forgot_a_checkout(project: Layout) -> None:
    """`dvc gc` without --projects takes the other's scans out of the cache; hardlinks and copies stay."""
    cache = project.root.parent / "cache"
    clone = Layout(project.root.parent / "clone")
    shell(project.root.parent, "git", "clone", "--quiet", str(project.root), str(clone.root))
    for one, name in ((project, "a.nii"), (clone, "b.nii")):
        shell(one.root, "dvc", "cache", "dir", "--local", str(cache))
        shell(one.root, "dvc", "config", "--local", "cache.type", "reflink,hardlink,copy")
        added(one, name)
        shell(one.root, "dvc", "checkout", "--quiet", "--relink", "data/raw")
    shell(project.root, "dvc", "gc", "--quiet", "--force", "--workspace")
    assert "not in cache" in shell(clone.root, "dvc", "status", "data/raw.dvc")
    track(clone)
    assert shell(clone.root, "dvc", "status", "data/raw.dvc") == "Data and pipelines are up to date.\n"
    assert (clone.raw / "b.nii").read_text() == "b.nii"
    assert_whole(cache)


def test_links_that_lead_nowhere_are_told_and_nothing_is_recorded(project: Layout) -> None:
    added(project, "a.nii")
    (project.raw / "b.nii").symlink_to(project.root / "elsewhere")
    with pytest.raises(MissingInputError, match="1 links in data/raw lead nowhere"):
        track(project)
    assert recorded(project) == Listing(1, 5)


def test_what_dvc_says_of_a_failure_is_told(project: Layout) -> None:
    added(project, "a.nii")
    (project.root / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(CtinterpError, match=r"`dvc .* add .*` failed: .*config"):
        track(project)
