"""What a caller of the Python API gives, by its type."""

import reprlib
from collections.abc import Mapping
from numbers import Integral, Real
from os import PathLike
from types import NoneType

import numpy as np
import torch

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.physics.profile import SampledProfile, Trapezoid

NUMBER, WHOLE, CHOICE = ("a number", (Real,)), ("a whole number", (Integral,)), ("True or False", (bool, np.bool_))
FILE = "the path of a model file", (str, PathLike)
EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "target_mm": NUMBER,
    "thickness_mm": ("a number or None", (Real, NoneType)),
    "memory_gib": NUMBER,
    "samples": WHOLE,
    "seed": WHOLE,
    "target_depth": WHOLE,
    "num_inference_steps": ("a whole number or None", (Integral, NoneType)),
    "return_std": CHOICE,
    "force": CHOICE,
    "profile": ("auto, a name or a profile of physics.profile", (str, Trapezoid, SampledProfile)),
    "series": ("a scan of a path, in words", (str, NoneType)),
    "model": FILE,
    "path": FILE,
    "device": ("auto, cpu or cuda", (str, torch.device)),
    "mixed_precision": ("no, bf16, int8 or auto", (str,)),
}
"""Each argument's type, in words and in classes."""


def check_types(given: Mapping[str, object]) -> None:
    """Refuse arguments of other types; True and False are no numbers.

    Args:
        given: arguments by name; those that `EXPECTED` does not list are passed over.

    Raises:
        ParamsError: one has another type.
    """
    for name, (words, types) in EXPECTED.items():
        value = given.get(name)
        if name in given and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise ParamsError(f"{name}={reprlib.repr(value)}: expected {words}")
