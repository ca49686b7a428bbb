"""Every stage on tiny phantoms, files in and files out."""

import json
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from ctinterp_dagster.champion import JUDGED, Registry, model_files, model_hash, trained_models
from ctinterp_dagster.decision import TaskMetrics, read_record
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.evaluation.gates import decide
from ctinterp_dagster.evaluation.preview import before_after
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.nullspace.diffusion import Expectation
from ctinterp_dagster.params import Params, task_name
from ctinterp_dagster.pipeline import (
    autoencoder,
    encode,
    evaluate,
    expect,
    ingest,
    latent,
    promote,
    report,
    thicken,
    train,
)
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.pipeline.trainings import training
from ctinterp_dagster.pipeline.trainings.training import identity, thin_volumes
from ctinterp_dagster.records import file_hash, read_csv
from ctinterp_dagster.scan.io import read_scan
from tests.conftest import smoke_params
from tests.pipeline.conftest import run_all


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Layout]:
    layout = Layout(tmp_path_factory.mktemp("smoke"))
    layout.raw.mkdir(parents=True)
    params = smoke_params(layout.root)
    run_all(layout, params)
    return params, layout


def outputs(layout: Layout) -> dict[str, str]:
    files = [p for p in layout.root.rglob("*") if p.is_file() and not p.name.startswith(".partial-")]
    return {p.relative_to(layout.root).as_posix(): file_hash(p) for p in files}


def test_generate_leaves_a_picture_of_the_first_scan_before_and_after(done: tuple[Params, Layout]) -> None:
    params, layout = done
    case, task = read_cases(layout, "test")[0], params.thicken.tasks[0].name
    thick = read_scan(case.thick(layout, task)).volume
    thin = read_scan(layout.generate / "train" / task / f"{case.case}.nii").volume
    assert thin.depth > thick.depth
    assert (layout.report("generate") / "before-after.png").read_bytes() == before_after(thick, thin)


def test_every_method_is_scored_on_every_task_and_consistent_ones_give_the_scan_back(
    done: tuple[Params, Layout],
) -> None:
    params, layout = done
    rows = read_csv(layout.report("evaluate") / "per_case.csv")
    methods = (*params.evaluate.baselines, "autoencoder_ceiling", "latent", "model", "regression")
    assert {(task_name(r["profile"], float(r["factor"])), r["method"]) for r in rows} == {
        (task.name, method) for task in params.thicken.tasks for method in methods
    }
    assert all(float(r["residual_hu"]) < 0.5 for r in rows if r["method"] in ("model", "latent", "cubic_projected"))


def test_the_gate_is_shown_the_scores_of_the_table(done: tuple[Params, Layout]) -> None:
    params, layout = done
    rows = read_csv(layout.report("evaluate") / "per_case.csv")
    scored = read_record(dict[str, TaskMetrics], layout.report("evaluate") / "judged.json")["box-x2.5"]
    own = {r["case"]: float(r["psnr_db"]) for r in rows if (r["factor"], r["method"]) == ("2.5", "model")}
    assert scored.psnr_db_by_case == own
    assert scored.baseline in params.evaluate.baselines


def test_metrics_of_every_task_are_written_and_judged(done: tuple[Params, Layout]) -> None:
    layout = done[1]
    judged = json.loads((layout.report("promote") / "decision.json").read_text())["findings"][1]["text"]
    assert judged == "measured on box-x2.5, box-x5, gaussian-x5"
    metrics = json.loads((layout.report("evaluate") / "metrics.json").read_text())
    assert metrics.pop("test") == {"cases": 2, "phantoms": 2}
    assert set(metrics) == set(judged[12:].split(", "))
    assert {"coverage_90", "correlation"} <= set(metrics["box-x5"])
    assert {"error_hu", "ranking"} <= set(metrics["box-x5"]["evidence"])


def test_the_page_is_whole_by_itself_and_says_what_was_not_measured(done: tuple[Params, Layout]) -> None:
    page = (done[1].report("report") / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    assert "Not measured: run python -m benchmarks.dose reports/evidence/dose.json" in page


def test_the_champion_is_the_trained_model_and_can_be_loaded(done: tuple[Params, Layout]) -> None:
    layout = done[1]
    registry = Registry(layout.promote)
    files = registry.files(registry.champion.model_hash)
    assert model_hash(model_files(files)) == model_hash(trained_models(layout)) == registry.champion.model_hash
    assert load_checkpoint(files / JUDGED, "cpu").model.kind == "nullspace_diffusion"


def test_new_scans_and_tasks_make_the_champion_judged_again(
    done: tuple[Params, Layout], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done[1].root, layout.root, dirs_exist_ok=True)
    champion = Registry(layout.promote).champion
    before = champion.metrics.tasks["box-x5"].psnr_db_by_case
    judged = []
    monkeypatch.setattr(promote, "decide", lambda new, old, rules: judged.append((new, old)) or decide(new, old, rules))
    tasks = [{"factor": 5, "profile": "box"}, {"factor": 4, "profile": "box"}]
    changes = {"ingest": {"phantom": {"patients": 6}}, "thicken": {"tasks": tasks}, "expect": {"learning_rate": 0.1}}
    changes["evaluate"] = {"baselines": ["cubic_projected"]}
    run_all(layout, smoke_params(layout.root, **changes), but=(autoencoder, encode, latent, report))
    ((challenger, again),) = judged
    assert (again.model_hash, again.test_set_hash) == (champion.model_hash, challenger.test_set_hash)
    scores = {
        name: (task.psnr_db_by_case, challenger.tasks[name].psnr_db_by_case) for name, task in again.tasks.items()
    }
    assert set(scores) == {"box-x5", "box-x4"}
    for old, new in scores.values():
        assert old.keys() == new.keys() == {"phantom-02", "phantom-04", "phantom-06"}
        assert all(abs(old[case] - new[case]) > 0.01 for case in old)
    assert {case: scores["box-x5"][0][case] for case in before} == pytest.approx(before, abs=1e-4)


def test_a_second_run_changes_no_byte(done: tuple[Params, Layout]) -> None:
    """But for the trainings and the scores, which the next test repeats from nothing."""
    params, layout = done
    before = outputs(layout)
    run_all(layout, params, but=(autoencoder, expect, train, latent, evaluate, report))
    assert outputs(layout) == before


@pytest.mark.slow
def test_a_run_elsewhere_gives_the_same_bytes(done: tuple[Params, Layout], layout: Layout) -> None:
    _, first = done
    run_all(layout, smoke_params(layout.root))
    assert outputs(layout) == outputs(first)


@pytest.mark.parametrize(
    ("stage", "reported"),
    [
        (
            train,
            ["by_time.csv", "curve.csv", "metrics.json", "one_step/curve.csv", "one_step/metrics.json"],
        ),
        (latent, ["curve.csv", "metrics.json"]),
    ],
)
def test_a_training_run_again_writes_all_that_dvc_took_away(
    done: tuple[Params, Layout], tmp_path: Path, stage: ModuleType, reported: list[str]
) -> None:
    params, layout = done
    shutil.copytree(layout.root, tmp_path / "copy")
    copy, word = Layout(tmp_path / "copy"), stage.__name__.rpartition(".")[2]
    folder = copy.report(word)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == reported
    assert [path.name for path in copy.trained(word).parent.iterdir()] == ["model.safetensors"]
    shutil.rmtree(copy.report(word))  # as DVC does before it runs a stage
    copy.trained(word).write_bytes(b"damaged")
    stage.run(params, copy)
    assert outputs(copy) == outputs(layout)


def test_another_task_makes_its_thick_scans_and_no_others(layout: Layout) -> None:
    tasks = [{"factor": 4, "profile": "box"}]
    few = {"phantom": {"patients": 3}}
    ingest.run(smoke_params(layout.root, ingest=few), layout)
    assert thicken.run(smoke_params(layout.root, thicken={"tasks": tasks}), layout)["made"] == 3
    params = smoke_params(layout.root, thicken={"tasks": [*tasks, {"factor": 3.5, "profile": "box"}]})
    assert thicken.run(params, layout)["made"] == 3
    assert thicken.run(params, layout)["made"] == 0
    thick = {name: read_scan(layout.thicken / name / "phantom-01.nii").volume for name in ("box-x4", "box-x3.5")}
    assert [(v.depth, v.spacing_mm[0]) for v in thick.values()] == [(10, 4.0), (11, 3.5)]
    thin = read_scan(layout.ingest / "volumes" / "phantom-01.nii").volume
    np.testing.assert_allclose(thick["box-x3.5"].point_mm((-0.5, 0, 0)), thin.point_mm((-0.5, 0, 0)), atol=1e-3)


def test_a_checkpoint_that_is_not_there_is_never_replaced_by_chance(done: tuple[Params, Layout]) -> None:
    _, layout = done
    params = smoke_params(layout.root, autoencoder={"checkpoint": "nowhere.pt"})
    with pytest.raises(MissingInputError, match=r"docs/maisi\.md"):
        autoencoder.run(params, layout)
    smoke_params(layout.root)


def test_a_checkpoint_is_taken_as_it_is_or_tuned(done: tuple[Params, Layout], tmp_path: Path) -> None:
    _, first = done
    given = first.autoencoder / "autoencoder.safetensors"
    other = Layout(tmp_path / "other")
    shutil.copytree(first.ingest, other.ingest)
    written = other.autoencoder / "autoencoder.safetensors"
    taken = autoencoder.run(smoke_params(other.root, autoencoder={"checkpoint": str(given)}), other)
    assert written.read_bytes() == given.read_bytes()
    assert taken == {"tensors_loaded": 126}  # 130 but for the shortcuts between two levels of one width
    tuned = autoencoder.run(smoke_params(other.root, autoencoder={"checkpoint": str(given), "finetune": True}), other)
    assert written.read_bytes() != given.read_bytes()
    assert {"tensors_loaded", "loss", "psnr_db", "psnr_soft_db", "active_channels"} <= set(tuned)


def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(
    done: tuple[Params, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = done
    expected = layout.expectation.read_bytes()

    def stop_at_four(record: object) -> None:
        if record.step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "step_log", lambda *_: nullcontext(stop_at_four))
        with pytest.raises(KeyboardInterrupt):
            expect.run(params, layout)
    assert len(list(layout.expect.glob("resume-*.pt"))) == 1
    expect.run(params, layout)
    assert layout.expectation.read_bytes() == expected
    assert not list(layout.expect.glob("resume-*.pt"))


def test_another_training_s_checkpoint_is_not_resumed(
    done: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What names it: the code that the stage imports, the parameters that it reads, the data."""
    params, _ = done
    files = [tmp_path / "data"]
    files[0].write_text("one")
    stage = Path(train.__file__)
    sections = [params.base, params.train]
    names = [identity(stage, sections, files)]
    assert identity(stage, sections, files) == names[0]
    names.append(identity(stage, [params.base, params.train.model_copy(update={"steps": 7})], files))
    files[0].write_text("two")
    names.append(identity(stage, sections, files))
    names.append(identity(Path(latent.__file__), sections, files))
    monkeypatch.setattr(training, "code_version", lambda _: "another")
    names.append(identity(stage, sections, files))
    assert len(set(names)) == len(names)
    for name in names[:2]:
        with suppress(KeyboardInterrupt), training.resumable(tmp_path / "train", name) as checkpoint:
            assert not checkpoint.exists()
            checkpoint.write_text("half way")
            raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "train").iterdir()] == [f"resume-{names[1]}.pt"]


def test_a_training_begins_with_the_weights_of_another(
    done: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = done
    begun: list[float] = []
    monkeypatch.setattr(training, "run_loop", lambda objective, *_, **__: begun.append(first_number(objective)) or [])
    monkeypatch.setattr(training, "final_losses", lambda _: {})
    for start in ("", "data/train/model.safetensors", "data/expect/expectation.safetensors", "champion"):
        section = params.expect.model_copy(update={"start": start})
        elsewhere = Layout(tmp_path / str(len(begun)))
        shutil.copytree(layout.root, elsewhere.root)
        expect.run(params.model_copy(update={"expect": section}), elsewhere)
    trained = first_number(load_checkpoint(layout.trained("train")).model.expectation)
    assert begun[1:] == [trained] * 3
    assert begun[0] != trained


def test_a_share_of_the_weights_that_a_training_began_with_is_kept(
    done: tuple[Params, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, layout = done
    elsewhere = Layout(tmp_path / "elsewhere")
    shutil.copytree(layout.root, elsewhere.root)

    def add_eight(objective: torch.nn.Module, *_: object, **__: object) -> list[object]:
        with torch.no_grad():
            for weights in objective.parameters():
                weights.add_(8.0)
        return []

    monkeypatch.setattr(training, "run_loop", add_eight)
    monkeypatch.setattr(training, "final_losses", lambda _: {})
    section = params.expect.model_copy(update={"start": "champion", "start_share": 0.25})
    metrics = expect.run(params.model_copy(update={"expect": section}), elsewhere)
    before = load_checkpoint(layout.trained("train")).model.expectation
    after = Expectation.load(elsewhere.expectation)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(new, old + 6.0)
    assert metrics["val_loss"] > 0  # of the average


def test_how_often_a_case_is_drawn_is_given_by_pattern(done: tuple[Params, Layout]) -> None:
    _, layout = done
    case, *others = [case.case for case in read_cases(layout) if case.split == "train"]
    weights = [volume.weight for volume in thin_volumes(layout, "train", {case: 2.5})]
    assert weights == [2.5, *[1.0] * len(others)]
    with pytest.raises(ParamsError, match=r"expect\.weights: heart-\* fits no train case: expected one of"):
        thin_volumes(layout, "train", {"heart-*": 2.0})


def first_number(module: torch.nn.Module) -> float:
    return float(next(iter(module.parameters())).flatten()[0].detach())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": "absent.safetensors"}, MissingInputError, "start: .*absent.safetensors is missing"),
        ({"start": "data/train/model.safetensors", "blocks": 2}, ParamsError, "another expectation than"),
    ],
)
def test_weights_that_are_not_there_or_do_not_fit_are_refused(
    done: tuple[Params, Layout], change: dict[str, object], error: type[Exception], message: str
) -> None:
    params, layout = done
    section = params.expect.model_copy(update=change)
    with pytest.raises(error, match=message):
        expect.run(params.model_copy(update={"expect": section}), layout)


def test_a_denoiser_does_not_begin_with_one_that_predicts_something_else(done: tuple[Params, Layout]) -> None:
    params, layout = done
    other = {"v": "x0", "x0": "v"}[params.train.prediction]
    begun = {"prediction": other, "start": "data/train/model.safetensors"}
    section = params.train.model_copy(update=begun)
    with pytest.raises(ParamsError, match=rf"predicts {params.train.prediction}, .*prediction is {other}"):
        train.run(params.model_copy(update={"train": section}), layout)
