"""The network that the stage `train` distils from its denoiser."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.interpolation import RELEASED, load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.distillation import DistillationObjective
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline import expect, ingest, train
from ctinterp_dagster.pipeline.trainings import training
from ctinterp_dagster.records import read_csv
from tests.conftest import smoke_params


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Layout]:
    """Trained by the smoke preset."""
    layout = Layout(tmp_path_factory.mktemp("smoke"))
    layout.raw.mkdir(parents=True)
    params = smoke_params(layout.root)
    for stage in (ingest, expect, train):
        stage.run(params, layout)
    return params, layout


@pytest.fixture
def again(done: tuple[Params, Layout], tmp_path: Path) -> Layout:
    """A copy of it."""
    shutil.copytree(done[1].root, tmp_path / "copy")
    return Layout(tmp_path / "copy")


def with_train(params: Params, **changes: Any) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def with_one_step(params: Params, **changes: Any) -> Params:
    return with_train(params, one_step=params.train.one_step.model_copy(update=changes))


def test_the_stage_ends_with_a_model_that_draws_in_one_evaluation(done: tuple[Params, Layout]) -> None:
    params, layout = done
    assert params.generate.steps is None
    assert load_checkpoint(layout.trained("train"), "cpu").model.usual_steps == 1
    steps = [row["step"] for row in read_csv(layout.report("train") / "one_step" / "curve.csv")]
    assert steps == [str(step + 1) for step in range(params.train.one_step.steps)]
    metrics = json.loads((layout.report("train") / "one_step" / "metrics.json").read_text())
    assert set(metrics) == {"loss", "val_loss", "parameters"}


def test_without_steps_there_is_no_such_network(done: tuple[Params, Layout], again: Layout) -> None:
    params, layout = done
    assert set(train.run(with_one_step(params, steps=0), again)) == {"loss", "val_loss"}
    model = load_checkpoint(again.trained("train"), "cpu").model
    assert model.usual_steps == 8
    before = load_checkpoint(layout.trained("train"), "cpu").model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert read_csv(again.report("train") / "one_step" / "curve.csv") == []


def test_an_interrupted_distillation_goes_on_and_the_denoiser_is_not_trained_again(
    done: tuple[Params, Layout], again: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = done
    told: list[str] = []

    def stop(label: str, _: int) -> Any:
        def on_step(record: object) -> None:
            told.append(label)
            if label == "one_step":
                raise KeyboardInterrupt

        return nullcontext(on_step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "step_log", stop)
        for asked in (params, with_one_step(params, learning_rate=0.01), params):
            with pytest.raises(KeyboardInterrupt):
                train.run(asked, again)
    assert told == [*["train"] * params.train.steps, *["one_step"] * 3]
    again.trained("train").unlink()
    train.run(params, again)
    assert again.trained("train").read_bytes() == layout.trained("train").read_bytes()
    assert [path.name for path in again.train.iterdir()] == ["model.safetensors"]


def test_a_model_gets_the_network_without_a_step_of_its_denoiser(done: tuple[Params, Layout], again: Layout) -> None:
    params, _ = done
    train.run(with_one_step(params, steps=0), again)
    plain = load_checkpoint(again.trained("train"), "cpu").model
    shutil.copy(again.trained("train"), again.root / "plain.safetensors")
    train.run(with_train(params, start="plain.safetensors", steps=0), again)
    grown = load_checkpoint(again.trained("train"), "cpu").model
    assert (plain.usual_steps, grown.usual_steps) == (8, 1)
    tensors = grown.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in plain.state_dict().items())
    assert read_csv(again.report("train") / "curve.csv") == []


def test_it_begins_with_the_network_of_the_released_model(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DistillationObjective] = []

    def note(objective: torch.nn.Module, *_: object, **__: object) -> list[object]:
        seen.extend([objective] if isinstance(objective, DistillationObjective) else [])
        return []

    monkeypatch.setattr(training, "run_loop", note)
    shutil.copy(RELEASED, layout.root / "start.safetensors")
    start = {"start": "start.safetensors"}
    widths = {"expect": {**start, "channels": [48, 96, 128]}, "train": {**start, "channels": [32, 64, 96]}}
    params = smoke_params(layout.root, **widths)
    for stage in (ingest, expect, train):
        stage.run(params, layout)
    (objective,) = seen
    begun, released = objective.one_step.state_dict(), load_checkpoint(RELEASED, "cpu").model.one_step.state_dict()
    assert torch.equal(begun["conv_out.weight"][:4], released["conv_out.weight"])
    assert not begun["conv_out.weight"][4:].any()
    other = {name.split(".")[0] for name in begun if begun[name].shape != released[name].shape}
    assert other == {"conv_in", "conv_out", "embed"}
    same = [name for name in begun if name.split(".")[0] not in other]
    assert all(torch.equal(begun[name], released[name]) for name in same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "start is empty: give one"), ({"prediction": "v"}, "one_step learns from a denoiser of x0")],
)
def test_what_would_fail_after_the_training_is_refused_before_it(
    layout: Layout, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        smoke_params(layout.root, train=changes)
