"""Weights files are read without running them, and refused by name and number unless they fit."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ctinterp_dagster.errors import CheckpointError, MissingInputError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.autoencoder.weights import WRAPPERS, LoadStatistics, read_weights

BIAS = "decoder.blocks.9.bias"


def small(seed: int = 0) -> MaisiAutoencoder:
    torch.manual_seed(seed)
    return MaisiAutoencoder((8, 8, 8), 4, 8)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return dict(small(1).state_dict())


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def refused(path: Path, message: str, *, strict: bool = True) -> None:
    model = small()
    with pytest.raises(CheckpointError, match=message) as caught:
        model.load_pretrained_weights(path, strict=strict)
    assert "\n" not in str(caught.value)
    for name, tensor in small().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), "a refused file changed the model"


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_torch_files_load_bare_or_inside_an_outer_key(
    tmp_path: Path, tensors: dict[str, Tensor], wrapper: str | None
) -> None:
    content = tensors if wrapper is None else {wrapper: tensors, "epoch": 3, "scale_factor": torch.tensor(0.97)}
    model = small()
    statistics = model.load_pretrained_weights(saved(tmp_path / "w.pt", content))
    assert statistics == LoadStatistics(len(tensors), len(tensors), (), ())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())


def test_safetensors_files_load(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, tmp_path / "w.safetensors")
    model = small()
    assert model.load_pretrained_weights(tmp_path / "w.safetensors").loaded == len(tensors)
    assert torch.equal(model.state_dict()[BIAS], tensors[BIAS])


def test_half_precision_and_the_old_torch_format_load(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    half = {name: tensor.half() for name, tensor in tensors.items()}
    torch.save(OrderedDict(half), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    model = small()
    model.load_pretrained_weights(tmp_path / "w.pt")
    assert model.state_dict()[BIAS].dtype == torch.float32
    assert torch.equal(model.state_dict()[BIAS], half[BIAS].float())


def test_a_file_with_maisis_130_tensors_loads_whole(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = MaisiAutoencoder()
    model.to_empty(device="cpu")
    zeros = {name: torch.zeros(tensor.shape, dtype=torch.bfloat16) for name, tensor in model.state_dict().items()}
    file = saved(tmp_path / "autoencoder.pt", zeros)
    assert model.load_pretrained_weights(file) == LoadStatistics(130, 130, (), ())
    assert not any(parameter.any() for parameter in model.parameters())


def test_missing_tensors_are_refused_by_name_and_number(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    del tensors[BIAS]
    refused(saved(tmp_path / "w.pt", tensors), rf"1 missing \({BIAS}\)")


def test_unexpected_tensors_are_refused_by_name_and_number(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    extra = {f"attention.{i}": torch.zeros(1) for i in range(5)}
    refused(
        saved(tmp_path / "w.pt", tensors | extra), r"5 unexpected \(attention.0, attention.1, attention.2, \.\.\.\)"
    )


@pytest.mark.parametrize("strict", [True, False])
def test_misshapen_tensors_are_refused_by_name_and_shape(
    tmp_path: Path, tensors: dict[str, Tensor], *, strict: bool
) -> None:
    tensors[BIAS] = torch.zeros(9)
    refused(saved(tmp_path / "w.pt", tensors), rf"1 with another shape \({BIAS} 9 for 8\)", strict=strict)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], value: float, *, strict: bool
) -> None:
    tensors[BIAS] = torch.tensor([value] + 7 * [0.0])
    refused(saved(tmp_path / "w.pt", tensors), rf"1 not finite \({BIAS}\)", strict=strict)


def test_without_strict_what_fits_is_loaded_and_the_rest_is_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    kept = {BIAS: tensors[BIAS] + 1, "other": torch.zeros(1)}
    model = small()
    statistics = model.load_pretrained_weights(saved(tmp_path / "w.pt", kept), strict=False)
    assert (statistics.loaded, statistics.total) == (1, len(tensors))
    assert statistics.unexpected == ("other",)
    assert statistics.missing == tuple(sorted(tensors.keys() - {BIAS}))
    assert torch.equal(model.state_dict()[BIAS], kept[BIAS])


def test_a_file_without_one_tensor_of_the_model_never_passes_for_a_loaded_one(tmp_path: Path) -> None:
    refused(saved(tmp_path / "w.pt", {"other": torch.zeros(1)}), r"missing .* 1 unexpected", strict=False)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, tensors: dict[str, Tensor], suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "cannot be read safely as weights")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, *, zipped: bool) -> None:
    content = {"state_dict": Malicious(tmp_path / "ran")}
    if zipped:
        torch.save(content, tmp_path / "w.pt")
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(content))
    refused(tmp_path / "w.pt", "cannot be read safely as weights")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_contains_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    refused(saved(tmp_path / "w.pt", content), "holds state_dict, which are not tensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "a list where named tensors were expected"),
        ({}, "holds no tensors"),
        ({"epoch": 3, "lr": 0.1}, "holds epoch, lr, which are not tensors"),
        ({BIAS: torch.zeros(8, dtype=torch.int64)}, f"holds {BIAS}, which are not tensors of real numbers"),
        ({BIAS: torch.zeros(8, dtype=torch.complex64)}, f"holds {BIAS}"),
        ({1: torch.zeros(8)}, "holds 1, which are not"),
    ],
)
def test_what_is_not_named_tensors_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    refused(saved(tmp_path / "w.pt", content), message)


def test_a_missing_file_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.pt is not a file: expected weights as \.safetensors"):
        small().load_pretrained_weights(tmp_path / "none.pt")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00(X", b"\x08\0\0\0\0\0\0\0{"]),
    body=st.binary(max_size=200),
    suffix=st.sampled_from([".pt", ".safetensors"]),
)
def test_any_bytes_give_a_checkpoint_error_and_nothing_else(
    tmp_path: Path, head: bytes, body: bytes, suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(head + body)
    with pytest.raises(CheckpointError, match=r"weights|tensors"):
        read_weights(path)
