"""`ctinterp autoencoder`: what is refused, in one line, and what is imported."""

import json
import math
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctinterp_dagster.cli.actions import verify
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.errors import CheckpointError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.weights import read_metadata
from ctinterp_dagster.scan.io import write_volume
from ctinterp_dagster.scan.window import MAISI
from tests.cli.conftest import run
from tests.phantoms import phantom
from tests.shell import shell

BIAS = "decoder.blocks.9.bias"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random tensors with the names and shapes of NVIDIA's file."""
    torch.manual_seed(0)
    return dict(MaisiAutoencoder().state_dict())


@pytest.fixture(autouse=True)
def _small_phantom(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `verify` encodes is a 64th of what users wait for."""
    monkeypatch.setattr(verify, "PHANTOM_ZYX", (4, 16, 16))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_verify_tells_tensors_checksum_dtype_and_moments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "autoencoder.pt"
    torch.save({"unet_state_dict": {name: tensor.half() for name, tensor in published.items()}}, path)
    assert run(monkeypatch, "autoencoder", "verify", path) == 0
    first, checksum, moments, *_ = capsys.readouterr().out.splitlines()
    assert first == "130/130 tensors, 20,944,897 parameters, float16"
    assert checksum == f"sha256 {sha256(path.read_bytes()).hexdigest()}"
    assert moments.startswith("latent of the phantom: mean ")


def changed(tensors: dict[str, Tensor], fault: str) -> dict[str, Any]:
    """The tensors with one fault put in."""
    content: dict[str, Any] = dict(tensors)
    if fault == "missing":
        del content[BIAS]
    elif fault == "unexpected":
        content["attention.weight"] = torch.zeros(1)
    elif fault == "misshapen":
        content[BIAS] = torch.zeros(65)
    else:
        content[BIAS] = torch.full((64,), torch.nan)
    return content


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", f"1 missing ({BIAS})"),
        ("unexpected", "1 unexpected (attention.weight)"),
        ("misshapen", f"1 with another shape ({BIAS} 65 for 64)"),
        ("not finite", f"1 not finite ({BIAS})"),
    ],
)
def test_faulty_tensors_are_refused_by_name_and_number_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    published: dict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    fault: str,
    message: str,
) -> None:
    save_file(changed(published, fault), tmp_path / "w.safetensors")
    assert run(monkeypatch, "autoencoder", "verify", tmp_path / "w.safetensors") == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_truncated_foreign_and_malicious_files_are_refused_in_one_line_and_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(published, tmp_path / "truncated.pt")
    content = (tmp_path / "truncated.pt").read_bytes()
    (tmp_path / "truncated.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "malicious.pt")
    for name in ("truncated.pt", "text.pt", "malicious.pt"):
        assert run(monkeypatch, "autoencoder", "verify", tmp_path / name) == 1
        shown = capsys.readouterr().err
        assert f"{name} cannot be read safely as weights" in shown
        assert shown.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert run(monkeypatch, "autoencoder", "verify", tmp_path / "none.pt") == 1
    assert "none.pt is not a file" in capsys.readouterr().err


def test_import_writes_safetensors_and_a_card_under_dvc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    (project / "data" / "maisi").mkdir(parents=True)
    (project / "params.yaml").write_text("")
    shell(project, "dvc", "init", "--no-scm", "-q")
    torch.save({"state_dict": published}, tmp_path / "autoencoder.pt")
    monkeypatch.chdir(project)
    words = ["--source", "a mirror, revision 1", "--licence", "NVIDIA Open Model License"]
    assert run(monkeypatch, "autoencoder", "import", tmp_path / "autoencoder.pt", *words) == 0
    assert "under DVC" in capsys.readouterr().out
    folder = project / "data" / "maisi"
    weights = load_file(folder / "autoencoder.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in published.items())
    card = json.loads((folder / "card.json").read_text())
    assert (card["source"], card["licence"]) == ("a mirror, revision 1", "NVIDIA Open Model License")
    assert card["source_sha256"] == sha256sum(tmp_path / "autoencoder.pt")
    assert card["sha256"] == sha256sum(folder / "autoencoder.safetensors")
    assert (folder / "autoencoder.safetensors.dvc").exists()


def test_import_outside_of_a_project_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "autoencoder", "import", "w.pt", "--source", "s", "--licence", "l") == 1
    assert "params.yaml is not here" in capsys.readouterr().err


def test_a_narrow_autoencoder_loads_with_the_architecture_that_its_file_tells(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = MaisiAutoencoder((8, 16, 16), 4, 4).eval()
    saved.save(tmp_path / "w.safetensors")
    loaded = load_autoencoder(str(tmp_path / "w.safetensors"))
    assert loaded.architecture == saved.architecture
    x = torch.rand(1, 1, 8, 12, 16)
    with torch.no_grad():
        mean, logvar = loaded.encode(x, memory_gib=0.5)
        assert torch.equal(mean, saved.encode(x, memory_gib=0.5).mean)
        assert logvar.shape == mean.shape == (1, 4, 2, 3, 4)
        assert loaded.decode(mean, memory_gib=0.5).shape == x.shape


@pytest.mark.parametrize("width", [1 << 16, 1 << 61])
def test_an_architecture_that_its_tensors_do_not_have_is_refused_before_it_is_built(tmp_path: Path, width: int) -> None:
    path = tmp_path / "w.safetensors"
    claimed = {"channels": [width] * 3, "latent_channels": 4, "norm_groups": 1}
    save_file({"a": torch.zeros(1)}, path, metadata={"ctinterp_autoencoder": json.dumps(claimed)})
    with pytest.raises(CheckpointError, match=r"122 missing|says that its architecture is"):
        load_autoencoder(path)


@pytest.mark.parametrize("recorded", ["[]", "{", '{"channels": [8, 8, 9], "latent_channels": 4, "norm_groups": 4}'])
def test_an_architecture_that_makes_no_sense_is_refused(tmp_path: Path, recorded: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={"ctinterp_autoencoder": recorded})
    with pytest.raises(CheckpointError, match="says that its architecture is"):
        load_autoencoder(path)


def test_files_without_metadata_have_none(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    assert read_metadata(tmp_path / "w.safetensors") == read_metadata(tmp_path / "w.pt") == {}


def test_an_autoencoder_of_label_maps_is_refused_by_what_it_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mask_generation_autoencoder.pt"
    torch.save({"encoder.blocks.0.conv.conv.weight": torch.zeros(32, 8, 3, 3, 3)}, path)
    assert run(monkeypatch, "autoencoder", "verify", path) == 1
    assert "reads 8 channels, a CT has one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("autoencoder_v1.pt", "nvidia/NV-Generate-CT, under the NVIDIA Open Model License"),
        ("autoencoder_v2.pt", "nvidia/NV-Generate-MR, under the NVIDIA OneWay Noncommercial License"),
        ("autoencoder.pt", "v1 or v2? The tensors do not tell"),
    ],
)
def test_verify_tells_the_licence_by_the_name_or_that_it_cannot(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    published: dict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
) -> None:
    torch.save(published, tmp_path / name)
    assert run(monkeypatch, "autoencoder", "verify", tmp_path / name) == 0
    assert words in capsys.readouterr().out


def test_the_scale_factor_of_a_diffusion_checkpoint_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = MaisiAutoencoder((8, 8, 8), norm_groups=8)
    narrow.save(tmp_path / "autoencoder.safetensors")
    torch.save({"unet_state_dict": {}, "scale_factor": torch.tensor(1.0549)}, tmp_path / "unet.pt")
    torch.save({"unet_state_dict": {}, "scale_factor": torch.tensor(torch.nan)}, tmp_path / "nan.pt")
    torch.save({"unet_state_dict": {}, "scale_factor": torch.tensor(1 + 1j)}, tmp_path / "complex.pt")
    command = "autoencoder", "verify", tmp_path / "autoencoder.safetensors", "--diffusion"
    assert run(monkeypatch, *command, tmp_path / "unet.pt") == 0
    assert "scale factor of unet.pt: 1.054900" in capsys.readouterr().out
    for refused in ("nan.pt", "complex.pt"):
        assert run(monkeypatch, *command, tmp_path / refused) == 1
        assert "has no scale_factor" in capsys.readouterr().err


def test_verify_scores_the_users_scans_by_window_and_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    narrow = MaisiAutoencoder((8, 8, 8), norm_groups=8).eval()
    narrow.save(tmp_path / "autoencoder.safetensors")
    thin = phantom(0, shape_zyx=(24, 32, 32), spacing_mm=(1.0, 3.0, 3.0), noise_hu=10.0)
    write_volume(thin, tmp_path / "scan.nii.gz")
    command = "autoencoder", "verify", tmp_path / "autoencoder.safetensors", tmp_path / "scan.nii.gz"
    precisions = "--mixed-precision", "no", "--mixed-precision", "bf16"
    scan = (tmp_path / "scan.nii.gz").read_bytes()
    assert run(monkeypatch, *command, "--json", tmp_path / "scan.nii.gz") == 1
    assert (tmp_path / "scan.nii.gz").read_bytes() == scan
    assert run(monkeypatch, *command, *precisions, "--json", tmp_path / "rows.json") == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["scan"], row["mixed_precision"], row["window"]) for row in rows] == [
        ("scan", precision, window) for precision in ("no", "bf16") for window in ("-1000..1000", "-160..240")
    ]
    with torch.inference_mode():
        unit = MAISI.to_unit(MAISI.clip(torch.from_numpy(thin.hu)))[None, None]
        decoded = MAISI.from_unit(narrow.decode(narrow.encode(unit).mean, (24, 32, 32))[0, 0])
    error = MAISI.clip(decoded) - MAISI.clip(torch.from_numpy(thin.hu))
    assert rows[0]["psnr_db"] == pytest.approx(10 * math.log10(2000**2 / float(error.square().mean())), abs=0.01)
    assert rows[0]["mae_hu"] == pytest.approx(float(error.abs().mean()), rel=1e-3)
    assert 0 < abs(rows[2]["psnr_db"] - rows[0]["psnr_db"]) < 0.2


def test_verify_asks_for_all_scans_first_and_keeps_what_was_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MaisiAutoencoder((8, 8, 8), norm_groups=8).eval().save(tmp_path / "a.safetensors")
    write_volume(phantom(0, (24, 32, 32), (1.0, 3.0, 3.0), 10.0), tmp_path / "scan.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    words = ["autoencoder", "verify", tmp_path / "a.safetensors", tmp_path / "scan.nii.gz"]
    assert run(monkeypatch, *words, tmp_path / "none.nii.gz") == 1
    shown = capsys.readouterr()
    assert (shown.out, "none.nii.gz does not exist" in shown.err) == ("", True)
    assert run(monkeypatch, *words, tmp_path / "bad.nii.gz", "--json", tmp_path / "rows.json") == 1
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 2
    assert "-160..240" in capsys.readouterr().out
    assert run(monkeypatch, *words, "--mixed-precision", "fp16", "--device", "cpu") == 1
    assert "fp16 is very slow on a processor: take bf16" in capsys.readouterr().err
