import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from ctinterp_dagster.cli.preset import PRESETS, command, override
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.interpolation.interpolator import RELEASED
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.params import Params, load_params
from ctinterp_dagster.scan.checks import SLICE_SPACING_MM

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "params.yaml").read_text()


def leaves(tree: object, path: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        return {k: v for key, sub in tree.items() for k, v in leaves(sub, f"{path}.{key}".lstrip(".")).items()}
    return {path: tree}


def test_the_committed_parameters_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").base.seed == yaml.safe_load(TEXT)["base"]["seed"]


@pytest.mark.parametrize(
    "change", [("device: cpu", "device: auto"), ('mixed_precision: "no"', "mixed_precision: bf16")]
)
def test_the_same_bytes_are_not_promised_where_they_depend_on_the_processor(
    change: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace(*change))
    with pytest.raises(ParamsError, match=r"base\.repeatable needs base\.device cpu and loop\.mixed_precision no"):
        load_params(tmp_path / "params.yaml")


def test_every_leaf_has_a_comment() -> None:
    lines = [line for line in TEXT.splitlines() if re.match(r"\s+\w+:", line)]
    assert [line for line in lines if "#" not in line] == []


def test_there_are_no_more_values_than_a_person_reads() -> None:
    assert 60 < len(leaves(yaml.safe_load(TEXT))) <= 82


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("  seed:", "  sede: 1\n  seed:"))
    with pytest.raises(ParamsError, match=r"base\.sede: Extra inputs are not permitted"):
        load_params(tmp_path / "params.yaml")


def test_an_impossible_value_is_refused_with_the_value(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("factor: 5, profile: g", "factor: 1, profile: g"))
    with pytest.raises(ParamsError, match=r"thicken\.tasks\.1\.factor: .*greater than 1, got 1"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("mm", [SLICE_SPACING_MM[0] / 2, 2 * SLICE_SPACING_MM[1], 1e30])
@pytest.mark.parametrize("name", ["max_spacing_mm: 2.5", "spacing_mm: [1.0"])
def test_a_slice_distance_that_no_scanner_has_is_refused(tmp_path: Path, name: str, mm: float) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace(name, name[:-3] + str(mm)))
    with pytest.raises(ParamsError, match=r"spacing_mm.*: Input should be .* than or equal to (0\.1|20)"):
        load_params(tmp_path / "params.yaml")


def test_parameters_from_before_trainings_had_a_section_in_common_are_refused_with_what_to_do(tmp_path: Path) -> None:
    values = yaml.safe_load(TEXT)
    values["train"] |= values.pop("loop")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    message = str(caught.value)
    assert "stands once, below loop: move launcher, accumulation" in message
    assert "or begin with the params.yaml of this version" in message
    assert len(message) < 400


def test_a_bare_no_is_the_word_no_and_not_false(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace('mixed_precision: "no"', "mixed_precision: no"))
    assert load_params(tmp_path / "params.yaml").loop.mixed_precision == "no"
    (tmp_path / "params.yaml").write_text(TEXT.replace('mixed_precision: "no"', "mixed_precision: yes"))
    with pytest.raises(ParamsError, match="got True"):
        load_params(tmp_path / "params.yaml")


def test_a_task_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(TEXT.replace("factor: 2.5,", "factor: 5.0,"))
    with pytest.raises(ParamsError, match=r"thicken\.tasks: .*give each task once: box-x5 is there several times"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(PRESETS.glob("*.yaml"))], ids=lambda p: p.stem)
def test_a_factor_that_is_not_whole_is_trained_and_judged_by_default(path: Path) -> None:
    tasks = yaml.safe_load(path.read_text())["thicken"]["tasks"]
    assert any(task["factor"] % 1 for task in tasks)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"run from the project's root"):
        load_params(tmp_path / "params.yaml")


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ParamsError, match=r"params\.yaml is not YAML"):
        load_params(tmp_path / "params.yaml")


def test_a_file_that_is_no_text_is_refused_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ParamsError, match=r"^params\.yaml is no text in UTF-8: .*$"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ParamsError, match=r"^params\.yaml is no text in UTF-8: .*directory.*$"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_valid_and_sets_the_same_keys(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    params = yaml.safe_load(TEXT)
    override(params, values)
    Params.model_validate(params)
    assert set(leaves(values)) == set(leaves(yaml.safe_load((PRESETS / "demo.yaml").read_text())))


def test_the_committed_parameters_are_the_demo_preset() -> None:
    committed = leaves(yaml.safe_load(TEXT))
    demo = leaves(yaml.safe_load((PRESETS / "demo.yaml").read_text()))
    assert {key: committed[key] for key in demo} == demo


def test_the_parameters_that_the_released_model_was_trained_with_fit_it_and_are_still_valid() -> None:
    params = load_params(RELEASED.with_name("params.yaml"))
    model = load_checkpoint(device="cpu").model
    assert isinstance(model, NullSpaceDiffusion)
    assert model.config.expectation.channels == params.expect.channels
    assert (model.config.channels, model.config.prediction) == (
        params.train.channels,
        params.train.prediction,
    )


def test_a_preset_says_what_it_changes_and_which_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(command, ["smoke"]).output.splitlines()
    assert any(re.fullmatch(r"train\.steps: \d+ -> 4", line) for line in shown)
    assert not any(line.startswith("base.") for line in shown)
    assert CliRunner().invoke(command, []).output == "params.yaml has the values of the preset smoke\n"
    assert CliRunner().invoke(command, ["smoke"]).output.startswith("params.yaml now has")
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("batch_size: 4", "batch_size: 7"))
    assert CliRunner().invoke(command, []).output == "params.yaml has the values of no preset\n"


def test_the_preset_for_gpus_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    *_, gpu, weights = CliRunner().invoke(command, ["gpu"]).output.splitlines()
    assert "without a GPU set loop.launcher: python" in gpu
    assert weights.startswith("data/maisi/autoencoder.safetensors is missing: `ctinterp autoencoder import`")
    (tmp_path / "data" / "maisi").mkdir(parents=True)
    (tmp_path / "data" / "maisi" / "autoencoder.safetensors").touch()
    assert "is missing" not in CliRunner().invoke(command, ["gpu"]).output
