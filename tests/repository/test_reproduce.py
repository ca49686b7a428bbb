"""The same commit gives the same bytes: elsewhere, at another time, in other surroundings; and a tag brings it back."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.checkout import ROOT, STAGES, Checkout

SMOKE_SEED = "2026"


def other_surroundings() -> tuple[dict[str, str], list[str]]:
    """Another locale, time zone and hash seed; one core; another host name and date where this machine lets us."""
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.split()
    language = next((name for name in locales if name.startswith("tr_TR")), "C")  # where "I".lower() is not "i"
    variables = {"LC_ALL": language, "LANG": language, "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7"}
    prefix = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    if os.geteuid() == 0 and subprocess.run(["unshare", "--uts", "true"], check=False).returncode == 0:
        prefix = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh", *prefix]
    if faketime := shutil.which("faketime"):
        prefix += [faketime, "-f", "+400d"]
    return variables, prefix


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    made = Checkout.clone(tmp_path_factory.mktemp("here") / "ctinterp", {"LC_ALL": "C", "TZ": "UTC"})
    made.run("dvc", "repro", "--force")
    return made


@pytest.mark.slow
def test_two_runs_in_different_surroundings_agree_in_every_hash(first: Checkout, tmp_path: Path) -> None:
    second = Checkout.clone(tmp_path / "another place, ünd längër", *other_surroundings())
    second.run("dvc", "repro", "--force")
    assert {key.split()[0] for key in first.hashes()} == set(STAGES)
    assert second.hashes() == first.hashes()
    assert second.files() == first.files()
    print(f"\n{len(first.hashes())} hashes of {len(STAGES)} stages are the same in both")


OTHER_PROCESSORS = {
    "other instructions": {
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "OPENBLAS_CORETYPE": "Sandybridge",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "another cache": {"PYTHONPATH": str(ROOT / "tests" / "repository" / "other_cache")},
}
"""What stands for another x86-64 processor: what its libraries find of instructions, and of the cache for data."""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64" or not shutil.which("nm"), reason="needs an x86-64 and nm")
@pytest.mark.parametrize("processor", OTHER_PROCESSORS)
def test_another_processor_gives_every_hash(processor: str, first: Checkout, tmp_path: Path) -> None:
    variables = OTHER_PROCESSORS[processor]
    root = tmp_path / "ctinterp"
    paths = {"PYTHONPATH": f"{variables['PYTHONPATH']}{os.pathsep}{root}"} if "PYTHONPATH" in variables else {}
    other = Checkout.clone(root, {**variables, **paths})
    other.run("dvc", "repro", "--force")
    assert other.hashes() == first.hashes()
    assert other.files() == first.files()
    print(f"\n{len(first.hashes())} hashes of {len(STAGES)} stages are the same with {processor}")


@pytest.mark.slow
def test_every_report_says_where_it_came_from(first: Checkout) -> None:
    commit = first.run("git", "rev-parse", "HEAD").strip()
    for stage in STAGES:
        record = json.loads((first.root / "reports" / stage / "provenance.json").read_text())
        assert (record["commit"], record["dirty"]) == (commit, True)  # the preset is an edit of params.yaml
        assert len(record["lock_sha256"]) == 64
        assert record["packages"]["torch"].startswith("2.13.0")
        assert record["hardware"]["cores"] == len(os.sched_getaffinity(0))
    assert "provenance.json" not in first.run("git", "status", "--porcelain", "--untracked-files=all")
    assert 'href="provenance.json"' in (first.root / "reports" / "report" / "index.html").read_text()


@pytest.mark.slow
def test_the_tag_of_a_champion_brings_back_data_weights_and_metrics(first: Checkout) -> None:
    first.run("git", "commit", "--quiet", "--all", "--message", "champion")
    first.run("git", "tag", "champion")
    hashes, files = first.hashes(), first.files()
    params = first.root / "params.yaml"
    params.write_text(params.read_text().replace(f"seed: {SMOKE_SEED}", "seed: 1"))
    first.run("dvc", "repro")
    assert first.hashes()["train outs data/train"] != hashes["train outs data/train"]
    first.run("git", "commit", "--quiet", "--all", "--message", "another seed")

    first.run("git", "checkout", "--quiet", "champion")
    first.run("dvc", "checkout")
    assert first.run("dvc", "status").strip() == "Data and pipelines are up to date."
    first.run("dvc", "repro", "--force", "--single-item", "evaluate")
    assert first.hashes() == hashes
    assert first.files() == files
