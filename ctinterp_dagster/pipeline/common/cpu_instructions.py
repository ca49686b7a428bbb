"""The processor's instructions that the libraries below torch and numpy use; they choose them as they are loaded."""

import os
import sys
from pathlib import Path

from ctinterp_dagster.errors import CtinterpError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import load_params

ONE_INSTRUCTION_SET = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""What makes the libraries below torch and numpy compute the same on every x86-64 processor with AVX2."""


def limit_instructions() -> None:
    """With `base.repeatable`, begin the process again with the variables that make its bytes the same elsewhere.

    A script calls it before it imports anything large, which would be loaded twice.

    Source: MKL's branch COMPATIBLE is the only one that it takes on processors of another maker than Intel (oneMKL's
        developer guide, conditional numerical reproducibility).
    """
    try:
        repeatable = load_params(Layout(Path()).params).base.repeatable
    except CtinterpError:  # which the stage tells
        return
    if repeatable and not ONE_INSTRUCTION_SET.items() <= os.environ.items():
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **ONE_INSTRUCTION_SET})  # noqa: S606 (this very command)
