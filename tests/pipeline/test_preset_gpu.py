"""`ctinterp preset gpu` and `dvc repro` to the end on a CPU: a file as NVIDIA publishes it, tiny scans, few steps."""

import json
import os
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from ctinterp_dagster.champion import Registry
from ctinterp_dagster.cli.preset import override
from ctinterp_dagster.interpolation import load_checkpoint
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.records import read_csv, write_csv
from ctinterp_dagster.scan.io import write_volume
from tests.checkout import STAGES, Checkout
from tests.phantoms import phantom

pytestmark = pytest.mark.slow

SPLITS = {"scan1": "train", "scan2": "train", "scan3": "val", "scan4": "test"}
FEW = {"steps": 2, "warmup_steps": 1}
ON_A_CPU: dict[str, Any] = {
    "base": {"device": "cpu", "threads": 1},
    "loop": {"launcher": "python", "checkpoint_every": 2},
    "expect": {**FEW, "slab_zyx": [4, 16, 16], "batch_size": 1},
    "train": {**FEW, "one_step": {"steps": 2}},
    "latent": {**FEW, "patch_zyx": [12, 16, 16], "batch_size": 1},
    "generate": {"steps": 2, "samples": 2, "memory_gib": 4.0},
}
"""What a machine without a GPU changes of the preset: widths, checkpoint, tasks and methods are as they were."""


def published() -> dict[str, Tensor]:
    """The names and shapes of NVIDIA's 130 tensors, with random weights."""
    torch.manual_seed(0)
    return dict(MaisiAutoencoder().state_dict())


def of_label_maps() -> dict[str, Tensor]:
    """The names and shapes of MAISI's other autoencoder, which reads 8 channels and writes 125."""
    tensors = dict(MaisiAutoencoder((32, 64, 128)).state_dict())
    tensors["encoder.blocks.0.conv.conv.weight"] = torch.zeros(32, 8, 3, 3, 3)
    tensors["decoder.blocks.10.conv.conv.weight"] = torch.zeros(125, 32, 3, 3, 3)
    tensors["decoder.blocks.10.conv.conv.bias"] = torch.zeros(125)
    return tensors


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone with four scans, and beside it the files that a person downloads."""
    folder = tmp_path_factory.mktemp("gpu")
    made = Checkout.clone(folder / "ctinterp", {"OMP_NUM_THREADS": "1", "CTINTERP_KEY_FILE": str(folder / "key")})
    torch.save(published(), folder / "autoencoder_v1.pt")
    torch.save(of_label_maps(), folder / "mask_generation_autoencoder.pt")
    torch.save({"unet_state_dict": {}, "scale_factor": torch.tensor(1.0549)}, folder / "diff_unet_3d_rflow-ct.pt")
    scans = folder / "scans"
    scans.mkdir()
    for number, name in enumerate(SPLITS):
        write_volume(phantom(number, (40, 64, 64), (1.0, 5.5, 5.5), 10.0), scans / f"{name}.nii.gz")
    rows = [{"file": f"{name}.nii.gz", "patient": name, "split": split} for name, split in SPLITS.items()]
    write_csv(scans / "scans.csv", rows, list(rows[0]))
    made.run("ctinterp", "scans", "add", *(str(scans / f"{name}.nii.gz") for name in SPLITS))
    return made


def settled(project: Checkout) -> None:
    """Write the preset, and what a CPU changes of it."""
    project.run("ctinterp", "preset", "gpu")
    params = project.root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    override(values, ON_A_CPU)
    params.write_text(yaml.safe_dump(values))


def measured(project: Checkout, *command: str) -> tuple[float, float]:
    """Run a command that must succeed; CPU seconds of it and of all that it started, and the largest one's GiB."""
    log = project.root.parent / "log.txt"
    process = project.start(*command, log=log)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, log.read_text()[-4000:]
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20


def test_nvidias_file_goes_in_and_a_judged_model_comes_out(project: Checkout) -> None:
    files = {path.name: str(path) for path in project.root.parent.glob("*.pt")}
    diffusion = files["diff_unet_3d_rflow-ct.pt"]
    shown = project.run("ctinterp", "autoencoder", "verify", files["autoencoder_v1.pt"], "--diffusion", diffusion)
    assert "130/130 tensors, 20,944,897 parameters" in shown
    assert "scale factor of diff_unet_3d_rflow-ct.pt: 1.054900" in shown
    words = "--source", "nvidia/NV-Generate-CT", "--licence", "NVIDIA Open Model License"
    code, shown = project.attempt("ctinterp", "autoencoder", "import", files["mask_generation_autoencoder.pt"], *words)
    assert (code, "reads 8 channels, a CT has one" in shown) == (1, True)
    project.run("ctinterp", "autoencoder", "import", files["autoencoder_v1.pt"], *words)
    settled(project)
    print("\n| stage | CPU s | GiB |\n|---|---|---|")
    for stage in STAGES:
        seconds, gib = measured(project, "dvc", "repro", stage)
        print(f"| {stage} | {seconds:.0f} | {gib:.1f} |", flush=True)
    assert project.run("dvc", "status").strip() == "Data and pipelines are up to date."


def test_the_latent_row_stands_in_the_report_and_the_gate_has_judged(project: Checkout) -> None:
    layout = Layout(project.root)
    latent = load_checkpoint(layout.trained("latent"), "cpu").model
    assert all(torch.equal(tensor, latent.autoencoder.state_dict()[name]) for name, tensor in published().items())
    assert latent.config.denoiser_channels == (128, 256, 512)
    scale = 1 / json.loads((layout.encode / "statistics.json").read_text())["latent_std"]
    assert latent.config.scale_factor == pytest.approx(scale)
    rows = read_csv(layout.report("evaluate") / "per_case.csv")
    residuals = [float(row["residual_hu"]) for row in rows if row["method"] == "latent"]
    assert len(residuals) == 3
    assert max(residuals) < 0.5
    assert "Latent diffusion" in (layout.report("report") / "index.html").read_text()
    decision = json.loads((layout.report("promote") / "decision.json").read_text())
    assert decision["promoted"] is True
    assert Registry(layout.promote).champion
