"""What DVC itself says of the project's stages after an edit: a training is not lost to another one's change."""

import shutil
import subprocess
from collections.abc import Callable

import pytest
import yaml

from tests.checkout import Checkout
from tests.conftest import ROOT
from tests.shell import changed, shell

TRAININGS = {"autoencoder", "expect", "train", "latent"}
EDIT = ("import", "import  ")
Edited = Callable[..., set[str]]


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Edited:
    """Stages that are stale after replacements, by file, in a project that was up to date; its data are a word each."""
    project = Checkout(tmp_path_factory.mktemp("stale"))
    tracked = ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config", "stages", "ctinterp_dagster", "reports/evidence")
    names = subprocess.run(["git", "ls-files", *tracked], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project.root / name)
    project.run("git", "init", "--quiet")
    for folder in ("raw", "maisi"):
        (project.root / "data" / folder).mkdir(parents=True)
    for word, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for entry in (*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])):
            path = project.root / (entry if isinstance(entry, str) else next(iter(entry)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(word)
    shell(project.root, "dvc", "commit", "--force", "--quiet")

    def stale(changes: dict[str, tuple[str, str]]) -> set[str]:
        before = {file: (project.root / file).read_text() for file in changes}
        for file, (old, new) in changes.items():
            assert old in before[file]
            (project.root / file).write_text(before[file].replace(old, new))
        said = changed(project.root)
        for file, text in before.items():
            (project.root / file).write_text(text)
        return said

    return stale


def test_an_edit_of_a_network_leaves_what_has_none_fresh(edited: Edited) -> None:
    stale = edited({"ctinterp_dagster/model/autoencoder/fast_layers.py": EDIT})
    assert stale == {"autoencoder", "encode", "latent", "generate", "evaluate", "promote"}


@pytest.mark.parametrize(
    ("word", "value", "module"),
    [
        ("latent", ("target: residual", "target: latent"), "latent/patches"),
        ("train", ("prediction: x0", "prediction: v"), "nullspace/objective"),
    ],
)
def test_a_change_of_one_training_makes_no_other_stale(
    edited: Edited, word: str, value: tuple[str, str], module: str
) -> None:
    """Of its parameters and of its code; the regression and the diffusion around it share a folder."""
    own = {"params.yaml": value, f"ctinterp_dagster/pipeline/{word}.py": EDIT}
    assert edited(own) & TRAININGS == {word}
    shared = edited({f"ctinterp_dagster/{module}.py": EDIT}) & TRAININGS
    assert shared == {"latent/patches": {"latent"}, "nullspace/objective": {"expect", "train"}}[module]
