"""The table of methods: a new method is a function and a row."""

import importlib
from pathlib import Path

import pytest

from ctinterp_dagster import methods
from ctinterp_dagster.cli import evaluate, interpolate
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.evaluation import page, statistics
from ctinterp_dagster.methods import Role, Row
from ctinterp_dagster.params import load_params
from ctinterp_dagster.physics import baselines
from ctinterp_dagster.physics.measurement import Estimate, Measurement, simulated
from ctinterp_dagster.pipeline.scoring import score_methods
from ctinterp_dagster.scan.phantom import phantom
from tests.conftest import ROOT

TOY = Row("toy", "Toy", Role.RIVAL, consistent=True)


def restore(measurement: Measurement) -> Estimate:
    return measurement.estimate(measurement.operator.pseudo_inverse(measurement.thick_hu))


def test_every_rival_has_its_function_and_every_name_is_used_once() -> None:
    assert tuple(baselines.METHODS) == methods.names(Role.RIVAL)
    assert len(set(methods.names())) == len(methods.TABLE)
    assert methods.names(Role.JUDGED) == (methods.judged().name,)
    assert methods.trained() == {"latent": "latent", "model": "train"}


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
        assert load_params(tmp_path / "params.yaml").evaluate.baselines[-1] == "toy"
        assert "toy" in evaluate.METHODS
        assert interpolate.METHODS[-1] == "toy"
        assert page.title("toy") == "Toy"
        measurement = simulated(phantom(3, (60, 24, 24), (1.0, 10.0, 10.0), 10.0), 5, "box")
        names = [name for name in evaluate.METHODS if name in ("nearest", "toy")]
        scored = {it.method: it.scores for it in score_methods(measurement, {n: evaluate.CLASSICAL[n] for n in names})}
        assert scored["toy"].residual_hu < 0.01
        assert scored["toy"].psnr_db == pytest.approx(scored["nearest"].psnr_db, abs=0.01)
    finally:
        monkeypatch.undo()
        for command in (evaluate, interpolate):
            importlib.reload(command)
    assert statistics.names(Role.RIVAL)[-1] == "registration_projected"
