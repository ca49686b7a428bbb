"""The table of methods: a new method is a function and a row."""

import importlib
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


def test_a_new_method_is_a_function_and_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("registration_projected] #", "registration_projected, toy] #")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match="expected one of nearest, linear"):
        load_params(tmp_path / "params.yaml")
    monkeypatch.setattr(methods, "TABLE", [*methods.TABLE, TOY])
    monkeypatch.setattr(baselines, "METHODS", {**baselines.METHODS, "toy": restore})
    try:
        for command in (evaluate, interpolate):
            importlib.reload(command)
        params = load_params(tmp_path / "params.yaml")
        assert params.evaluate.baselines[-1] == "toy"
        assert "toy" in evaluate.METHODS
        assert interpolate.METHODS[-1] == "toy"
        assert page.title("toy") == "Toy"
        measurement = simulated(phantom(3, (60, 24, 24), (1.0, 10.0, 10.0), 10.0), 5, "box")
        names = [name for name in evaluate.METHODS if name in ("nearest", "toy")]
        classical = baselines.METHODS
        scored = {it.method: it for it in score_methods(measurement, {n: classical[n] for n in names})}
        assert scored["toy"].scores.residual_hu < 0.01
        spread = SimpleNamespace(coverage_90=0.9, correlation=0.5)
        samples: Any = SimpleNamespace(calibration=spread, noise_ratio=1.0)
        scan: Any = SimpleNamespace(case="one")
        own = replace(scored["toy"], method="model")
        judged = ScoredTask([ScoredScan(scan, [*scored.values(), own], samples)], names).metrics
        assert (judged.baseline, judged.baseline_psnr_db) == ("toy", scored["toy"].scores.psnr_db)
        assert judged.baseline_psnr_db > scored["nearest"].scores.psnr_db
    finally:
        monkeypatch.undo()
        for command in (evaluate, interpolate):
            importlib.reload(command)
    assert statistics.names(Role.RIVAL)[-1] == "registration_projected"
