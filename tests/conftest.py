import math
import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml

from ctinterp_dagster.cli import progress
from ctinterp_dagster.cli.preset import PRESETS, override
from ctinterp_dagster.latent.diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.basis import FEATURES, MODES
from ctinterp_dagster.nullspace.diffusion import ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.params import Params, load_params

ROOT = Path(__file__).parent.parent

hypothesis.settings.register_profile("untimed", deadline=None)  # no test depends on timing
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # before the fixtures of modules and of the session
def pytest_runtest_setup() -> None:
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
    monkeypatch.setenv("CTINTERP_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))


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
def tiny_model() -> LatentDiffusion:
    """A narrow model with random weights that does add something to the interpolation."""
    torch.manual_seed(0)
    config = ModelConfig(
        autoencoder_channels=(4, 8, 8),
        norm_groups=4,
        latent_channels=4,
        denoiser_channels=(8, 8, 16),
        denoiser_blocks=1,
        prediction="v",
        target="residual",
        conditioning="encoded_interpolation",
        scale_factor=1.3,
        target_scale=2.0,
    )
    model = LatentDiffusion(config).eval()
    torch.nn.init.normal_(model.denoiser.conv_out.weight, std=0.05)
    return model


@pytest.fixture(scope="session")
def tiny_nullspace() -> NullSpaceDiffusion:
    """The same in the null space."""
    torch.manual_seed(0)
    widths = (8, 8, 8)
    expectation = ExpectationConfig(FEATURES, MODES, widths, 1, widths)
    model = NullSpaceDiffusion(NullSpaceConfig(expectation, widths, 1, "v")).eval()
    for network in (model.expectation.mean, model.expectation.spread, model.denoiser):
        torch.nn.init.normal_(network.conv_out.weight, std=0.05)
    return model


@pytest.fixture(params=["nullspace", "latent"])
def any_model(
    request: pytest.FixtureRequest, tiny_model: LatentDiffusion, tiny_nullspace: NullSpaceDiffusion
) -> LatentDiffusion | NullSpaceDiffusion:
    """Each kind of model in turn."""
    return {"nullspace": tiny_nullspace, "latent": tiny_model}[request.param]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return Layout(tmp_path)
