"""Files that were damaged behind DVC's back: made again, or refused in one line, never used."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.checkout import Checkout

pytestmark = pytest.mark.slow

Same = Callable[[Checkout], None]
OneLine = Callable[[str], str]


def damage(path: Path) -> None:
    """Turn some bytes in the middle of a file, at the same size."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(byte ^ 0xFF for byte in content[middle : middle + 16])
    path.chmod(0o644)
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_latent(checkout: Checkout) -> Path:
    return min((checkout.root / "data" / "encode").glob("*.safetensors"))


@pytest.mark.parametrize("harm", [damage, cut])
@pytest.mark.parametrize("name", ["data/train/model.safetensors", "data/encode/statistics.json"])
def test_a_damaged_output_is_made_again(
    finished: Checkout, same: Same, name: str, harm: Callable[[Path], None]
) -> None:
    harm(finished.root / name)
    finished.run("dvc", "repro")
    same(finished)


@pytest.mark.parametrize("harm", [damage, cut])
def test_a_damaged_manifest_is_named_and_made_again_when_it_is_gone(
    finished: Checkout, same: Same, one_line: OneLine, harm: Callable[[Path], None]
) -> None:
    manifest = finished.root / "data" / "encode" / "manifest.json"
    harm(manifest)
    code, shown = finished.attempt("dvc", "repro")
    assert code != 0
    assert "data/encode/manifest.json is damaged" in one_line(shown)
    manifest.unlink()
    finished.run("dvc", "repro")
    same(finished)


def test_a_damaged_latent_is_made_again(finished: Checkout, same: Same) -> None:
    damage(a_latent(finished))
    finished.run("dvc", "repro")
    same(finished)


def test_a_latent_damaged_in_the_cache_is_found_when_it_is_needed(finished: Checkout, same: Same) -> None:
    md5 = hashlib.md5(a_latent(finished).read_bytes()).hexdigest()
    damage(finished.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:])
    shutil.rmtree(finished.root / "data" / "encode")
    finished.attempt("dvc", "checkout")
    finished.run("dvc", "repro")
    same(finished)


def test_a_damaged_checkpoint_of_an_interrupted_training_is_refused_in_one_line(
    finished: Checkout, same: Same, one_line: OneLine
) -> None:
    params = finished.root / "params.yaml"
    before = params.read_text()
    values = yaml.safe_load(before)
    values["latent"]["ema_decay"] = 0.8
    params.write_text(yaml.safe_dump(values))
    stop = "import torch, ctinterp_dagster.latent.diffusion as m\nm.LatentDiffusion.save = None\n"
    script = stop + (finished.root / "stages" / "latent.py").read_text()
    assert finished.attempt("python", "-c", script)[0] != 0  # dies when all steps are done and the checkpoint is there
    (checkpoint,) = (finished.root / "data" / "latent").glob("resume-*.pt")
    cut(checkpoint)
    code, shown = finished.attempt("dvc", "repro")
    assert code != 0
    assert "remove it to start afresh" in one_line(shown)
    checkpoint.unlink()
    params.write_text(before)
    finished.run("dvc", "repro")
    same(finished)


@pytest.mark.parametrize("harm", ["cut", "empty"])
def test_a_damaged_lock_is_named_and_git_brings_it_back(finished: Checkout, same: Same, harm: str) -> None:
    lock = finished.root / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: len(whole) // 2] + "\n  : {" if harm == "cut" else "")
    code, shown = finished.attempt("dvc", "repro")
    assert code != 0
    assert "'./dvc.lock' is invalid" in shown or "'./dvc.lock' validation failed" in shown  # DVC's own words
    assert "Traceback" not in shown
    lock.write_text(whole)
    finished.run("dvc", "repro")
    same(finished)


def test_an_absent_lock_is_written_again(finished: Checkout, same: Same) -> None:
    (finished.root / "dvc.lock").unlink()
    finished.run("dvc", "repro")
    same(finished)
