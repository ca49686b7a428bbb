"""The table of methods: a new method is a function and a row."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctinterp_dagster import champion, methods
from ctinterp_dagster.cli.options import evaluate, interpolate
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation import page, statistics
from ctinterp_dagster.methods import MethodEntry, Role
from ctinterp_dagster.params import load_params
from ctinterp_dagster.physics import baselines
from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.measurement import Estimate, Measurement, simulated
from ctinterp_dagster.pipeline.evaluate import ScoredScan, ScoredTask
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from tests.conftest import ROOT
from tests.phantoms import phantom

TOY = MethodEntry("toy", "Toy", Role.RIVAL, consistent=True)


def restore(measurement: Measurement) -> Estimate:
    return measurement.estimate(cubic_projected(measurement.thick_hu, measurement.operator))


def test_every_rival_has_its_function_and_every_name_is_used_once() -> None:
    assert tuple(baselines.METHODS) == methods.names(Role.RIVAL)
    assert len(set(methods.names())) == len(methods.TABLE)
    assert methods.names(Role.JUDGED) == (methods.judged().name,)
    assert methods.trained() == {"latent": "latent", "model": "train"}
    assert sorted(champion.PLACES.values()) == sorted(methods.trained().values())
    assert champion.PLACES[champion.JUDGED] == methods.judged().stage


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy is in the table of methods and has a function; that is all."""
    monkeypatch.setattr(methods, "TABLE", [*methods.TABLE, TOY])
    monkeypatch.setattr(baselines, "METHODS", {**baselines.METHODS, "toy": restore})
    for command in (evaluate, interpolate):
        importlib.reload(command)
    yield
    monkeypatch.undo()
    for command in (evaluate, interpolate):
        importlib.reload(command)
    assert statistics.names(Role.RIVAL)[-1] == "registration_projected"


@pytest.fixture
def with_toy(tmp_path: Path) -> Path:
    """A params.yaml that names the toy among the baselines."""
    text = (ROOT / "params.yaml").read_text().replace("registration_projected] #", "registration_projected, toy] #")
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path / "params.yaml"


def test_a_method_without_a_row_is_refused(with_toy: Path) -> None:
    with pytest.raises(ParamsError, match="expected one of nearest, linear"):
        load_params(with_toy)


@pytest.mark.usefixtures("toy")
def test_a_method_with_a_row_is_known_to_parameters_commands_and_page(with_toy: Path) -> None:
    assert load_params(with_toy).evaluate.baselines[-1] == "toy"
    assert "toy" in evaluate.METHODS
    assert interpolate.METHODS[-1] == "toy"
    assert page.title("toy") == "Toy"


@pytest.mark.usefixtures("toy")
def test_a_method_with_a_row_is_scored_and_the_gate_compares_with_it() -> None:
    measurement = simulated(phantom(3, (60, 24, 24), (1.0, 10.0, 10.0), 10.0), 5, "box")
    names = ["nearest", "toy"]
    nearest, scored = score_methods(measurement, {name: baselines.METHODS[name] for name in names})
    assert scored.scores.residual_hu < 0.01
    spread = SimpleNamespace(coverage_90=0.9, correlation=0.5)
    samples: Any = SimpleNamespace(calibration=spread, noise_ratio=1.0)
    scan: Any = SimpleNamespace(case="one")
    judged = ScoredTask([ScoredScan(scan, [nearest, scored, replace(scored, method="model")], samples)], names).metrics
    assert (judged.baseline, judged.baseline_psnr_db) == ("toy", scored.scores.psnr_db)
    assert judged.baseline_psnr_db > nearest.scores.psnr_db
