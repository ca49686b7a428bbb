import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from ctinterp_dagster import interpolate
from ctinterp_dagster.errors import GeometryError, MissingInputError, NotCtError, ParamsError, TooFewSlicesError
from ctinterp_dagster.interpolation import load_checkpoint, thicken
from ctinterp_dagster.nullspace.diffusion import NullSpaceDiffusion
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.io.images import image_of, volume_of
from ctinterp_dagster.scan.volume import Volume
from tests.phantoms import phantom

LIKE = {"nibabel": nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.eye(4)), "sitk": SimpleITK.Image(1, 1, 1, 8)}

coarse_pixels = pytest.mark.filterwarnings("ignore:how good a result is here was not measured")
unknown_profile = pytest.mark.filterwarnings("ignore:the slice profile is not known")


@pytest.fixture(scope="module")
def thin() -> Volume:
    return phantom(7, shape_zyx=(30, 32, 36), spacing_mm=(1.0, 10.0, 9.0), noise_hu=10.0)


@pytest.fixture(scope="module")
def model(tiny_nullspace: NullSpaceDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    tiny_nullspace.save(path)
    return path


@pytest.mark.parametrize("kind", LIKE)
def test_an_image_gives_an_image_of_its_library_in_its_place(kind: str, thin: Volume, model: Path) -> None:
    thick = Volume(thicken(thin, 5, "box").hu, (5.0, 1.0, 0.9), thin.origin_mm, thin.direction)
    made = interpolate(image_of(thick, LIKE[kind]), target_mm=1.0, profile="box", model=model, device="cpu", force=True)
    assert type(made) is type(LIKE[kind])
    volume = volume_of(made)
    assert volume.hu.shape == (30, 32, 36)
    np.testing.assert_allclose(volume.point_mm((-0.5, 3, 4)), thick.point_mm((-0.5, 3, 4)), atol=1e-3)
    np.testing.assert_allclose(thicken(volume, 5, "box").hu, thick.hu, atol=0.1)


@coarse_pixels
@unknown_profile
def test_an_array_gives_an_array(thin: Volume, model: Path) -> None:
    thick = thicken(thin, 5, "box").hu
    made = interpolate(thick, spacing_mm=(5.0, 10.0, 9.0), model=model, device="cpu", force=True)
    assert (type(made), made.dtype, made.shape) == (np.ndarray, np.float32, (30, 32, 36))


def test_what_is_no_array_of_real_numbers_is_refused_by_its_kind(thin: Volume, model: Path) -> None:
    hu, told = thicken(thin, 5, "box").hu, {"spacing_mm": (5.0, 10.0, 9.0), "model": model}
    kinds = {
        "values of type complex64": hu + 0j,
        "values of type <U": hu.astype(str),
        "values of type object": hu.astype(object),
        "values of type bool": torch.from_numpy(hu > 0),
        "masked values": np.ma.masked_greater(hu, 50),
    }
    for what, values in kinds.items():
        with pytest.raises(ParamsError, match=f"got an array with {what}.*: expected real numbers"):
            interpolate(values, **told)
    with pytest.raises(GeometryError, match=re.escape("pixels along 3 axes (z, y, x), got shape (6, 32, 0)")):
        interpolate(hu[:, :, :0], **told)
    for given in (None, hu.tolist(), b"scan.nii"):
        with pytest.raises(
            NotCtError, match=f"got a {type(given).__name__}: expected an image of SimpleITK or nibabel"
        ):
            interpolate(given, model=model)


@coarse_pixels
@unknown_profile
def test_a_tensor_of_bfloat16_is_taken(thin: Volume, model: Path) -> None:
    hu = torch.from_numpy(thicken(thin, 5, "box").hu).bfloat16()
    made = interpolate(hu, spacing_mm=(5.0, 10.0, 9.0), model=model, device="cpu", force=True)
    assert (made.dtype, tuple(made.shape)) == (torch.float32, (30, 32, 36))


@coarse_pixels
@unknown_profile
@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_an_array_that_may_not_be_written_to_is_taken_in_silence(thin: Volume, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "thick.npy", thicken(thin, 5, "box").hu)
    mapped = np.load(tmp_path / "thick.npy", mmap_mode="r")
    made = interpolate(mapped, spacing_mm=(5.0, 10.0, 9.0), model=model, device="cpu", force=True)
    assert made.shape == (30, 32, 36)


def test_what_does_not_say_where_it_lies_is_refused(thin: Volume, model: Path) -> None:
    with pytest.raises(ParamsError, match="spacing_mm=None with a ndarray: arrays and tensors need"):
        interpolate(thin.hu, model=model)
    with pytest.raises(ParamsError, match=re.escape("images and files know theirs")):
        interpolate(LIKE["sitk"], spacing_mm=(5.0, 1.0, 1.0), model=model)
    with pytest.raises(TooFewSlicesError, match="expected a volume of three axes"):
        interpolate(SimpleITK.Image(4, 4, 1), model=model)


@pytest.mark.parametrize(("unit", "mm"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1), ("mm", 1)])
def test_units_of_an_image_in_memory_are_applied(unit: str, mm: float) -> None:
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.float32), np.diag([1.0, 2, 5, 1]))
    image.header.set_xyzt_units(unit)
    assert volume_of(image).spacing_mm == pytest.approx((5 * mm, 2 * mm, mm))


def test_images_in_memory_are_refused_as_files_are() -> None:
    values = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(GeometryError, match="sform_code and qform_code are 0"):
        volume_of(nib.Nifti1Image(values, None))
    with pytest.raises(GeometryError, match="Analyze"):
        volume_of(nib.Spm99AnalyzeImage(values, np.eye(4)))
    with pytest.raises(NotCtError, match="complex64: expected real numbers"):
        volume_of(nib.Nifti1Image(values.astype(np.complex64), np.eye(4)))
    with pytest.raises(NotCtError, match="complex64: expected real numbers"):
        volume_of(SimpleITK.Image([2, 3, 4], SimpleITK.sitkComplexFloat32))
    assert volume_of(nib.Nifti1Image(values[..., None], np.eye(4))).hu.shape == (4, 3, 2)
    assert volume_of(nib.MGHImage(values, np.eye(4))).hu.shape == (4, 3, 2)


@coarse_pixels
@unknown_profile
def test_the_example_of_the_readme_runs_with_the_released_model(thin: Volume) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    values: dict[str, object] = {"thick": image_of(thicken(thin, 5, "box"), LIKE["sitk"])}
    example = example.replace('sitk.ReadImage("thick.nii.gz")', "thick")
    exec(compile(example, "README.md", "exec"), values)
    assert values["thin"].GetSize() == (36, 32, 30)  # type: ignore[attr-defined]
    assert values["drawn_hu"].shape == (30, 32, 36)  # type: ignore[attr-defined]


@coarse_pixels
def test_a_path_and_a_tensor_are_taken_and_the_standard_deviation_comes_along(
    thin: Volume, model: Path, tmp_path: Path
) -> None:
    thick = thicken(thin, 5, "box")
    write_volume(thick, tmp_path / "thick.nii.gz")
    told = {"profile": "box", "model": str(model), "device": "cpu", "force": True}
    mean, std = interpolate(str(tmp_path / "thick.nii.gz"), return_std=True, samples=2, **told)
    assert (mean.GetSize(), std.GetSize(), mean.GetOrigin()) == ((36, 32, 30), (36, 32, 30), std.GetOrigin())
    tensor, spread = interpolate(
        torch.from_numpy(thick.hu), spacing_mm=thick.spacing_mm, return_std=True, samples=2, **told
    )
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), SimpleITK.GetArrayFromImage(mean), atol=0.05)
    assert float(spread.min()) >= 0
    assert float(spread.mean()) > 1


@pytest.mark.parametrize("options", [{"target_mm": 6.0}, {"target_mm": 0.01}])
def test_an_error_names_the_keyword_and_no_option_of_the_command(
    thin: Volume, model: Path, options: dict[str, float]
) -> None:
    with pytest.raises(ParamsError, match="target_mm") as caught:
        interpolate(thicken(thin, 5, "box").hu, spacing_mm=(5.0, 10.0, 9.0), model=model, **options)  # type: ignore[arg-type]
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing_mm": 5.0}, r"spacing_mm=5\.0: expected three numbers"),
        ({"return_std": True, "samples": 1}, "samples=2 or more, got 1"),
        *(
            ({"thickness_mm": mm}, r"expected 0\.1 to 50 mm; change thickness_mm$")
            for mm in (0.0, -1.0, 1e-3, 1e30, np.nan, np.inf)
        ),
        ({"device": "gpu"}, "the device is 'gpu': expected auto, cpu or cuda"),
        ({"mixed_precision": "fp16", "force": True}, "mixed_precision is 'fp16': expected no, bf16, int8 or auto"),
        ({"seed": 2**70}, "the seed is 1180591620717411303424: expected"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_the_words_of_the_call(
    thin: Volume, model: Path, options: dict[str, Any], message: str
) -> None:
    given = {"spacing_mm": (5.0, 10.0, 9.0), "model": model} | options
    with pytest.raises(ParamsError, match=message):
        interpolate(thicken(thin, 5, "box").hu, **given)


def test_a_scan_or_a_model_that_is_not_there_is_told(thin: Volume, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        interpolate(tmp_path / "none.nii")
    with pytest.raises(MissingInputError, match=r"is a folder and no model file: .* or leave out model$"):
        interpolate(thicken(thin, 5, "box").hu, spacing_mm=(5.0, 10.0, 9.0), model=str(tmp_path), force=True)


WRONG = {
    **dict.fromkeys(("target_mm", "thickness_mm", "memory_gib"), ("2", True)),
    **dict.fromkeys(("samples", "seed"), ("2", True, 2.5, None)),
    **dict.fromkeys(("return_std", "force"), (1, "yes", None)),
    **dict.fromkeys(("profile", "model", "device", "mixed_precision"), (2, None)),
    "series": (2,),
}


@pytest.mark.parametrize(("name", "wrong"), [(name, wrong) for name, values in WRONG.items() for wrong in values])
def test_an_argument_of_another_type_is_refused_by_its_name(name: str, wrong: object) -> None:
    for value in (wrong, [1], {}, object(), b"x", 2 + 1j, np.arange(200)):
        with pytest.raises(ParamsError, match=f"^{name}=.{{1,60}}: ") as caught:
            interpolate(np.zeros((6, 32, 36), np.float32), spacing_mm=(5.0, 10.0, 9.0), **{name: value})
        assert "\n" not in str(caught.value)


def test_a_loaded_model_refuses_arguments_of_another_type(model: Path) -> None:
    for path in (None, 3, [1], b"x"):
        with pytest.raises(ParamsError, match=re.escape(f"path={path!r}: expected the path of a model file")):
            load_checkpoint(path)  # type: ignore[arg-type]
    loaded, thick_hu = load_checkpoint(str(model), "cpu"), np.zeros((6, 32, 36), np.float32)
    for name, wrong in (("target_depth", 12.5), ("num_inference_steps", "a"), ("seed", None)):
        with pytest.raises(ParamsError, match=f"{name}={wrong!r}: expected a whole number"):
            loaded.generate(thick_hu, **{"target_depth": 12, name: wrong})
