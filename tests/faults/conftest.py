"""One undisturbed smoke run to compare with, and what is true after every fault."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctinterp_dagster.champion import Registry, model_files, model_hash
from ctinterp_dagster.layout import Layout
from tests.checkout import Checkout


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout after a smoke run that nothing disturbed."""
    made = Checkout.clone(tmp_path_factory.mktemp("undisturbed") / "ctinterp")
    (made.root / "repro.log").write_text(made.run("dvc", "repro"))
    return made


@pytest.fixture
def finished(undisturbed: Checkout, tmp_path: Path) -> Checkout:
    """A copy of it, to be damaged."""
    shutil.copytree(undisturbed.root, tmp_path / "ctinterp", symlinks=True)
    return replace(undisturbed, root=tmp_path / "ctinterp")


@pytest.fixture
def same(undisturbed: Checkout) -> Callable[[Checkout], None]:
    """Asserts that a checkout holds what the undisturbed run made, and no rest of a killed process."""

    def compare(checkout: Checkout) -> None:
        assert checkout.hashes() == undisturbed.hashes()
        assert checkout.files() == undisturbed.files()
        assert checkout.run("dvc", "status").strip() == "Data and pipelines are up to date."
        rests = [*(checkout.root / "data").rglob(".partial-[0-9]*"), *(checkout.root / "data").rglob("resume-*")]
        assert rests == []

    return compare


@pytest.fixture
def champion_is_whole() -> Callable[[Checkout], bool]:
    """Whether there is a champion; asserts that its files are those that were promoted."""

    def check(checkout: Checkout) -> bool:
        registry = Registry(Layout(checkout.root).promote)
        champion = registry.champion
        if champion is not None:
            assert model_hash(model_files(registry.files(champion.model_hash))) == champion.model_hash
        return champion is not None

    return check


@pytest.fixture
def one_line() -> Callable[[str], str]:
    """The line that says what is wrong, in the output of a command that failed; asserts that there is no traceback."""

    def pick(shown: str) -> str:
        assert "Traceback" not in shown, shown[-4000:]
        errors = [line for line in shown.splitlines() if line.lower().startswith("error: ")]
        assert errors, shown[-4000:]
        return errors[0]

    return pick
