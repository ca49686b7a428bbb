"""Two hundred random edits, each followed by a run of either side: Dagster and DVC call the same stages changed."""

import os
import random
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo

from ctinterp_dagster.orchestration.dvc import DvcInvocation, DvcProject
from tests.orchestration.test_assets import KEYS, UNITS, materialize, stale, tick

Shell = Callable[..., str]
Status = Callable[[DvcProject], set[str]]

ROUNDS = 200
REAL_EVERY = 20  # rounds between two whose stages Dagster runs as processes, as in use
SEED = int(os.environ.get("AGREEMENT_SEED", "5"))
DROP = random.Random()
MADE = ("data/prepared.csv", "models/a.json", "models/b.json", "scores/metrics.json")
NOTES = ("notes/b", "notes/c")


class Hand:
    """Somebody who edits the toy project at random."""

    def __init__(self, project: DvcProject, shell: Shell) -> None:
        self.root, self.shell = project.root, shell
        self.draw = random.Random(SEED)

    def edit(self) -> str:
        """One random edit; what was done."""
        kind = self.draw.choice(
            ("parameter", "parameter", "code", "code", "data", "comment", "description", "command", "tampered out",
             "removed out", "taken back", "origin", "update", "tampered note", "removed note")
        )  # fmt: skip
        number = self.draw.randint(1, 4)
        if kind == "parameter":
            self.write("params.yaml", f"prepare: {{factor: {number}}}\nfit: {{rate: 0.{number}, tolerance: 0.00001}}\n")
        elif kind == "code":
            file = self.draw.choice(("prepare.py", "fit.py", "score.py"))
            self.write(file, (self.root / file).read_text().split("\n# ")[0] + f"\n# {number}\n")
        elif kind == "data":
            self.write("data/raw.csv", f"1\n2\n{number}\n")
        elif kind == "comment":
            self.write("params.yaml", f"# {number}\n" + (self.root / "params.yaml").read_text())
        elif kind in {"description", "command"}:
            text = {"description": f"Number {number}.", "command": f"python{' ' * number}score.py"}[kind]
            field = {"description": "    desc: ", "command": "    cmd: python "}[kind]
            lines = (self.root / "dvc.yaml").read_text().splitlines()
            where = [i for i, line in enumerate(lines) if line.startswith(field) and "fit" not in line][-1]
            lines[where] = field.split(":")[0] + ": " + text
            self.write("dvc.yaml", "\n".join(lines) + "\n")
        elif kind == "origin":
            self.write("origin.txt", f"{number}\n")
        elif kind == "update":
            self.shell(self.root, "dvc", "update", "-q", "data/far.txt.dvc")
        elif kind == "taken back":
            self.shell(self.root, "git", "checkout", "-q", "dvc.yaml", "params.yaml", "fit.py")
        else:
            file = self.root / self.draw.choice(MADE if kind.endswith("out") else NOTES)
            file.unlink(missing_ok=True)
            if kind.startswith("tampered"):
                file.parent.mkdir(exist_ok=True)
                file.write_text(f'{{"mean": {number}}}' if file.suffix == ".json" else f"{number}\n")
        return kind

    def write(self, file: str, text: str) -> None:
        """Write a file of the project, as a new one: DVC may have linked it to its cache."""
        (self.root / file).unlink(missing_ok=True)
        (self.root / file).write_text(text)

    def run_outside(self) -> str:
        """One random command of DVC or Git; what was done."""
        kind = self.draw.choice(
            ("repro",) * 6 + ("single item", "single item", "checkout", "git", "pull", "experiment")
        )
        with Repo(str(self.root)) as repo:
            try:
                if kind in {"repro", "single item"}:
                    repo.reproduce(targets=[self.draw.choice(list(KEYS))], single_item=kind == "single item")
                elif kind == "checkout":
                    repo.checkout(force=True, allow_missing=True)
                elif kind == "pull":
                    repo.pull(force=True, allow_missing=True)
            except DvcException as error:  # a missing input, say: then nothing was run
                return f"{kind}: {error}"
        if kind == "git":
            self.shell(self.root, "git", "checkout", "-q", ".")
            self.shell(self.root, "dvc", "checkout", "-q", "--force")
        elif kind == "experiment" and self.draw.random() < 0.4:  # seconds each
            self.shell(self.root, "git", "checkout", "-q", ".")
            self.shell(self.root, "dvc", "checkout", "-q", "--force")
            rate = self.draw.randint(1, 9)
            self.shell(self.root, "dvc", "exp", "run", "-q", "-S", f"fit.rate=0.0{rate}", "-n", f"tried-{rate}", "-f")
            self.shell(self.root, "git", "checkout", "-q", ".")
            self.shell(self.root, "dvc", "exp", "apply", "-q", f"tried-{rate}")
        return kind


def run_here(self: DvcInvocation, variables: Mapping[str, str]) -> Generator[str, None, int]:
    """The command that the invocation runs, in this process; now and then a file is dropped while it runs."""
    target = self.arguments[-1]
    with Repo(str(self.project.root)) as repo:
        try:
            repo.reproduce(targets=[target], single_item="--single-item" in self.arguments)
        except DvcException as error:
            yield f"ERROR: {error}"
            return 255
    if DROP.random() < 0.2:
        raw = self.project.root / "data" / "raw.csv"
        raw.unlink(missing_ok=True)  # it may be a link into the cache
        raw.write_text(f"1\n2\n{DROP.randint(5, 8)}\n")
    yield f"Running stage '{target}':"
    return 0


def run_in_dagster(
    project: DvcProject, instance: dg.DagsterInstance, targets: list[str], *, partitions: bool
) -> set[str]:
    """Materialize stages, and the items of `fit` one by one where they are partitions; those that were made."""
    if not partitions:
        result = materialize(project, instance, *targets, raises=False)
        return {t for t in KEYS if result.asset_materializations_for_node(t.replace("@", "__"))}
    made = set()
    for target in sorted(targets, key=["prepare", "fit@a", "fit@b", "score"].index):
        key, partition = UNITS[target]
        selection = dg.AssetSelection.assets(key)
        result = materialize(project, instance, raises=False, selection=selection, partition=partition)
        made |= {target} if result.success else set()
    return made


@pytest.fixture
def in_root(toy: DvcProject, monkeypatch: pytest.MonkeyPatch, shell: Shell, tmp_path: Path) -> Iterator[DvcProject]:
    """The toy project as the working folder, and a remote that has all.

    `fit` reads an imported file too, and `score` a tracked folder.
    """
    (toy.root / "origin.txt").write_text("1\n")
    shell(toy.root, "dvc", "import-url", "-q", "origin.txt", "data/far.txt")
    (toy.root / "notes").mkdir()
    for name in "ab":
        (toy.root / "notes" / name).write_text("1\n")
    shell(toy.root, "dvc", "add", "-q", "notes")
    text = (toy.root / "dvc.yaml").read_text().replace("deps: [fit.py,", "deps: [fit.py, data/far.txt,")
    (toy.root / "dvc.yaml").write_text(text.replace("deps: [score.py,", "deps: [score.py, notes,"))
    shell(toy.root, "dvc", "repro", "-q")
    shell(toy.root, "git", "add", "-A")
    shell(toy.root, "git", "commit", "-qm", "toy: an import and a folder")
    shell(toy.root, "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    shell(toy.root, "git", "commit", "-qam", "toy: a remote")
    shell(toy.root, "dvc", "push", "-q")
    monkeypatch.chdir(toy.root)
    yield toy
    shutil.rmtree(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of DVC 3.67, in this process
@pytest.mark.parametrize("partitions", [False, True])
def test_after_any_edit_and_any_run_dagster_and_dvc_call_the_same_stages_changed(
    in_root: DvcProject, shell: Shell, dvc_changed: Status, monkeypatch: pytest.MonkeyPatch, *, partitions: bool
) -> None:
    if partitions:
        text = (in_root.root / "dvc.yaml").read_text()
        (in_root.root / "dvc.yaml").write_text(text.replace("{group: models}", "{group: models, partitions: true}"))
        shell(in_root.root, "git", "commit", "-qam", "toy: partitions")
    DROP.seed(SEED)
    hand, really = Hand(in_root, shell), DvcInvocation._print
    with dg.DagsterInstance.ephemeral() as instance:
        tick(in_root, instance)
        seen: set[frozenset[str]] = set()
        for number in range(int(os.environ.get("AGREEMENT_ROUNDS", ROUNDS))):
            told = [f"round {number}", *(hand.edit() for _ in range(hand.draw.randint(1, 2)))]
            tick(in_root, instance)
            assert stale(in_root, instance, partitions=partitions) == dvc_changed(in_root), told
            if hand.draw.random() < 0.5:
                targets = hand.draw.sample(list(KEYS), hand.draw.randint(1, len(KEYS)))
                monkeypatch.setattr(DvcInvocation, "_print", really if number % REAL_EVERY == 0 else run_here)
                raw = (in_root.root / "data" / "raw.csv").read_bytes()
                made = run_in_dagster(in_root, instance, targets, partitions=partitions)
                dropped = (in_root.root / "data" / "raw.csv").read_bytes() != raw
                told += [f"materialized {sorted(made)} of {sorted(targets)}"]
                assert dropped or made.isdisjoint(dvc_changed(in_root)), told
            else:
                told.append(hand.run_outside())
                tick(in_root, instance)
            changed = dvc_changed(in_root)
            assert stale(in_root, instance, partitions=partitions) == changed, told
            seen.add(frozenset(changed))
            assert tick(in_root, instance) == [], told
        assert len(seen) > 5
