"""Where a training of the null-space model begins: afresh, or with the weights of another model."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ctinterp_dagster.champion import JUDGED, Registry
from ctinterp_dagster.errors import CheckpointError, MissingInputError, ParamsError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.files import read_model
from ctinterp_dagster.model.forward_process import Prediction
from ctinterp_dagster.nullspace.diffusion import ExpectationConfig, NullSpaceConfig, NullSpaceDiffusion, widened
from ctinterp_dagster.nullspace.slab_settings import Augmentation, SlabSettings
from ctinterp_dagster.params import Expect
from ctinterp_dagster.physics.profile import profile_named

CHAMPION = "champion"
VALIDATION_SLABS = 16


def slab_settings(expect: Expect) -> SlabSettings:
    """Training slabs from parameters.

    Args:
        expect: parameters of the stage.

    Returns:
        Size and variation of the slabs.

    Raises:
        ParamsError: there is no such slice profile.
    """
    augmentation = Augmentation(**expect.augmentation.model_dump())
    profiles = tuple(map(profile_named, expect.augmentation.profiles))
    return SlabSettings(expect.slab_zyx, replace(augmentation, profiles=profiles))


def start_file(start: str, layout: Layout) -> Path | None:
    """The model file that a training begins with.

    DVC follows the released model alone: a new champion does not make the training stale that it began.

    Args:
        start: a path from the root; `champion` for the champion's null-space model, afresh while there is none; empty.
        layout: where things are.

    Returns:
        The path; None to begin afresh.

    Raises:
        MissingInputError: the file is not there.
    """
    if start == CHAMPION:
        registry = Registry(layout.promote)
        return registry.files(registry.champion.model_hash) / JUDGED if registry.champion else None
    path = layout.root / start
    if start and not path.exists():
        raise MissingInputError(f"start: {path} is missing: give a model file, champion, or leave it empty")
    return path if start else None


def average_with(part: nn.Module, name: str, path: Path, config: ExpectationConfig, share: float) -> None:
    """Average a trained part with the weights that its training began with.

    Args:
        part: the trained module, changed in place.
        name: of the part in a whole model.
        path: of the old weights: a whole model, or the part alone.
        config: of the expectation that the part is, or belongs to.
        share: of the old weights, in [0, 1].

    Raises:
        ParamsError: the stored network has other widths.

    Source: Wortsman et al. 2022 (robust fine-tuning), eq. 1.
    """
    old = copy.deepcopy(part)
    load_part(old, name, path, config)
    with torch.no_grad():
        for weights, before in zip(part.parameters(), old.parameters(), strict=True):
            weights.lerp_(before, share)


def load_part(part: nn.Module, name: str, path: Path, config: ExpectationConfig) -> None:
    """Fill a part of the null-space model from a model file; one that knows fewer cosines is widened.

    Args:
        part: the module to fill.
        name: of the part in a whole model: `expectation`, `denoiser` or `one_step`.
        path: a whole model, or the part alone.
        config: of the expectation that the part is, or belongs to.

    Raises:
        ParamsError: its networks have other widths or numbers of blocks.
    """
    file = read_model(path)
    tensors = file.tensors
    if file.kind == NullSpaceDiffusion.kind:
        old = file.config_as(NullSpaceConfig).expectation
        fewer = old.modes < config.modes and old.geometry <= config.geometry
        grown = widened(tensors, old, config) if fewer else tensors
        tensors = {key.removeprefix(f"{name}."): t for key, t in grown.items() if key.startswith(f"{name}.")}
    try:
        replace(file, tensors=dict(tensors)).fill(part)
    except CheckpointError as error:
        raise ParamsError(f"start: {path} has another {name} than the parameters ask for: give its widths") from error


def has_part(name: str, path: Path) -> bool:
    """Whether a whole model has a part."""
    return any(tensor.startswith(f"{name}.") for tensor in read_model(path).tensors)


def must_predict(prediction: Prediction, path: Path) -> None:
    """Refuse a whole model whose denoiser was trained to predict something else, which the weights do not show.

    Args:
        prediction: what the network is to predict.
        path: the model's file.

    Raises:
        ParamsError: so it was.
    """
    found = read_model(path).config["prediction"]
    if found != prediction:
        raise ParamsError(
            f"train.start: the denoiser of {path} predicts {found}, train.prediction is "
            f"{prediction}: make them the same, or begin afresh once with an empty start"
        )
