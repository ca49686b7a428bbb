"""Where a result came from: commit, lock, versions, machine. Kept beside the results, never in them.

A result's bytes must not depend on when, where or from which commit it was made, or no two runs could be compared. So
the record is a file of its own, `reports/<stage>/provenance.json`: no output of DVC, and not in Git.
"""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

INSTRUCTION_SETS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""The variables that limit the instructions with which the libraries below torch and numpy compute."""


def provenance(root: Path, device: str) -> dict[str, Any]:
    """The record of a run that ends now.

    Args:
        root: the project's root.
        device: what computed, as torch names it.

    Returns:
        `commit` is None outside of a Git checkout; `dirty` says whether tracked files differ from it; `lock_sha256` is
        that of dvc.lock as the stage found it, None where there is none.
    """
    lock = root / "dvc.lock"
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {dist.name: dist.version for dist in sorted(distributions(), key=lambda d: d.name.lower())},
        "hardware": _hardware(device),
    }


def _hardware(device: str) -> Mapping[str, Any]:
    return {
        "system": platform.platform(),
        "processor": _processor(Path("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": device,
        "caches": _caches(Path("/sys/devices/system/cpu/cpu0/cache")),
        "instruction_sets": {name: os.environ[name] for name in INSTRUCTION_SETS if name in os.environ},
    }


def _processor(cpuinfo: Path) -> str:
    """The processor's name, which decides the last digits of a sum."""
    lines: Sequence[str] = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _caches(folder: Path) -> Mapping[str, str]:
    """Sizes of the first core's caches by level and kind, such as `1 Data`: oneDNN plans its sums by them."""
    found = {}
    for size in sorted(folder.glob("index*/size")):
        level, kind = ((size.parent / name).read_text().strip() for name in ("level", "type"))
        found[f"{level} {kind}"] = size.read_text().strip()
    return found


def _git(root: Path, *words: str) -> str | None:
    """What Git says; None where there is no Git, or no checkout."""
    try:
        done = subprocess.run(  # noqa: S603 (no shell; the words are ours)
            ["git", *words],  # noqa: S607 (the user's own git)
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
