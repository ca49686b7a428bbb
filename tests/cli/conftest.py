"""`ctinterp` as its users call it, and scans and a model to call it with."""

from pathlib import Path

import pytest

from ctinterp_dagster.cli.main import main
from ctinterp_dagster.interpolation import thicken
from ctinterp_dagster.latent.diffusion import LatentDiffusion
from ctinterp_dagster.scan.io import write_volume
from tests.phantoms import phantom


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of `ctinterp WORDS`."""
    monkeypatch.setattr("sys.argv", ["ctinterp", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: LatentDiffusion) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    tiny_model.save(path)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    thin = phantom(3, shape_zyx=(40, 40, 44), spacing_mm=(1.0, 2.9, 2.8), noise_hu=10.0)
    write_volume(thin, folder / "thin.nii.gz")
    write_volume(thicken(thin, 5, "box"), folder / "thick.nii.gz")
    return folder
