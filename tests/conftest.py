"""What all tests share. The process that hands the tests out reads this file too, and is spared torch."""

import math
import os
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import yaml

from ctinterp_dagster.cli import progress
from ctinterp_dagster.cli.preset import PRESETS, override
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, load_params

if TYPE_CHECKING:
    from ctinterp_dagster.latent.diffusion import LatentDiffusion
    from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion

ROOT = Path(__file__).parent.parent
KEYS = count()  # a file of its own for each test

hypothesis.settings.register_profile("untimed", deadline=None)  # no test depends on timing
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before the fixtures of modules and of the session
def pytest_runtest_setup() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where continuous integration has installed what tests need, a skipped test has failed, but by the processor."""
    report = yield
    known = hasattr(report, "wasxfail") or "this processor has no" in str(report.longrepr)
    if report.skipped and not known and "CTINTERP_NO_SKIPS" in os.environ:
        report.outcome = "failed"
    return report


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTINTERP_KEY_FILE", str(tmp_path_factory.getbasetemp() / f"key-{next(KEYS)}"))


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come when a command takes long, so on slow machines only."""
    monkeypatch.setattr(progress, "FIRST_S", math.inf)


def smoke_params(root: Path, **changes: dict[str, object]) -> Params:
    """The smoke preset, written into `root`/params.yaml."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    override(values, yaml.safe_load((PRESETS / "smoke.yaml").read_text()))
    override(values, changes)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(root / "params.yaml")


@pytest.fixture(scope="session")
def tiny_model() -> "LatentDiffusion":
    """A narrow model with random weights that does add something to the interpolation."""
    from tests.networks import narrow_latent

    return narrow_latent()


@pytest.fixture(scope="session")
def tiny_nullspace() -> "NullSpaceDiffusion":
    """The same in the null space."""
    from tests.networks import narrow_nullspace

    return narrow_nullspace()


@pytest.fixture(params=["nullspace", "latent"])
def any_model(
    request: pytest.FixtureRequest, tiny_model: "LatentDiffusion", tiny_nullspace: "NullSpaceDiffusion"
) -> "LatentDiffusion | NullSpaceDiffusion":
    """Each kind of model in turn."""
    return {"nullspace": tiny_nullspace, "latent": tiny_model}[request.param]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return Layout(tmp_path)
