"""Which denoiser? Diffusion in the null space, and in the latent space of the autoencoder."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.latent_diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.model.nullspace import Expectation, NullSpaceConfig, NullSpaceDiffusion
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.cases import read_cases
from ctinterp_dagster.pipeline.start import begin_with, must_predict, start_file
from ctinterp_dagster.pipeline.training import (
    final_losses,
    is_main_process,
    loop_settings,
    recipe_key,
    resumable,
    thin_volumes,
    watched,
    write_curve,
)
from ctinterp_dagster.records import code_version, file_hash, read_json, whole_file, write_csv, write_json
from ctinterp_dagster.scan.split import Split
from ctinterp_dagster.training.denoiser import train_denoiser
from ctinterp_dagster.training.latents import LatentPair, PatchSettings
from ctinterp_dagster.training.loop import StepRecord, run_loop
from ctinterp_dagster.training.nullspace import NoisySlabs, NullSpaceObjective, loss_by_time
from ctinterp_dagster.training.resident import ThinVolume
from ctinterp_dagster.training.slabs import SlabSettings, ThickSlabs

logger = logging.getLogger(__name__)

VALIDATION_SLABS = 16
Model = NullSpaceDiffusion | LatentDiffusion


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/train/<model>/model.safetensors`; in `reports/train` the curves `<model>.csv`, and `metrics.json`.

    A model whose parameters, code and data are those of the file that is there is not trained again, unless the file
    was damaged; its curves lie beside it, because DVC empties the reports before the stage runs.
    """
    metrics: dict[str, float] = {}
    trainings: dict[str, Callable[[Params, Layout, Mapping[str, Any]], Mapping[str, float]]] = {
        "nullspace": train_nullspace,
        "maisi": train_maisi,
    }
    for name, training in trainings.items():
        recipe = recipe_of(name, params, layout)
        done = layout.trained(name).with_name("trained.json")
        if not is_trained(layout.trained(name), done, recipe):
            numbers = training(params, layout, recipe)
            if is_main_process():
                weights = file_hash(layout.trained(name))
                write_json(done, {"key": recipe_key(recipe), "weights": weights, "metrics": dict(numbers)})
        if is_main_process():
            for curve in done.parent.glob("*.csv"):
                with whole_file(layout.report("train") / curve.name) as partial:
                    shutil.copyfile(curve, partial)
        metrics |= {f"{name}_{key}": value for key, value in read_json(done)["metrics"].items()}
    if is_main_process():
        write_json(layout.report("train") / "metrics.json", metrics)
    return metrics


def is_trained(model: Path, done: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the file is what this recipe made."""
    if not (done.exists() and model.exists()):
        return False
    record = read_json(done)
    return (record.get("key"), record.get("weights")) == (recipe_key(recipe), file_hash(model))


def recipe_of(name: str, params: Params, layout: Layout) -> dict[str, Any]:
    """Everything that a model depends on."""
    start = start_file(params.train.nullspace.start, layout) if name == "nullspace" else None
    source = {"nullspace": layout.expectation, "maisi": layout.encode / "manifest.json"}[name]
    return {
        "section": params.train.model_dump()[name],
        "start": file_hash(start) if start else "",
        "base": params.base.model_dump(),
        "code": code_version("model", "physics", "training", "pipeline/train.py"),
        "data": [file_hash(path) for path in (layout.ingest / "cases.csv", layout.ingest / "manifest.json", source)],
    }


def train_nullspace(params: Params, layout: Layout, recipe: Mapping[str, Any]) -> dict[str, float]:
    """The diffusion around what `expect` found."""
    section = params.train.nullspace
    expectation = Expectation.load(layout.expectation)
    torch.manual_seed(params.base.seed)
    config = NullSpaceConfig(expectation.config, section.channels, section.blocks, section.prediction)
    model = NullSpaceDiffusion(config)
    start = start_file(section.start, layout)
    if start:
        begin_with(model.denoiser, "denoiser", start)
        must_predict(section.prediction, start)
    model.expectation = expectation
    slab = SlabSettings(section.slab_zyx, params.expect.vary, params.expect.noise_hu)

    def noisy(volumes: Sequence[ThinVolume]) -> NoisySlabs:
        return NoisySlabs(ThickSlabs(volumes, slab, section.batch_size), expectation.config.modes)

    unseen = thin_volumes(layout, "val")
    count = max(1, VALIDATION_SLABS // section.batch_size)
    validation = noisy(unseen).fixed(count, params.base.seed) if unseen else []
    objective = NullSpaceObjective(model)
    with (
        resumable(layout.trained("nullspace").parent, recipe) as checkpoint,
        watched("nullspace", section.steps) as on_step,
    ):
        history = run_loop(
            objective,
            noisy(thin_volumes(layout, "train", params.expect.weights)),
            loop_settings(section, params.base),
            validation=validation,
            checkpoint=checkpoint,
            on_step=on_step,
        )
        if is_main_process():
            rows = loss_by_time(objective, validation) if validation else []
            write_csv(layout.trained("nullspace").with_name("nullspace_by_time.csv"), rows, ["t", "loss"])
        return results(model, "nullspace", history, layout)


def train_maisi(params: Params, layout: Layout, recipe: Mapping[str, Any]) -> dict[str, float]:
    """The diffusion of the latents that `encode` wrote."""
    section = params.train.maisi
    torch.manual_seed(params.base.seed)
    model = LatentDiffusion(configuration(params, layout))
    model.autoencoder.load_pretrained_weights(layout.autoencoder / "autoencoder.safetensors")
    with resumable(layout.trained("maisi").parent, recipe) as checkpoint, watched("maisi", section.steps) as on_step:
        history = train_denoiser(
            model.denoiser,
            latent_pairs("train", model.config, params, layout),
            latent_pairs("val", model.config, params, layout),
            prediction=section.prediction,
            patch=PatchSettings(section.patch_zyx, section.flip_axes, section.one_step_share),
            settings=loop_settings(section, params.base),
            checkpoint=checkpoint,
            on_step=on_step,
        )
        return results(model, "maisi", history, layout)


def results(model: Model, name: str, history: Sequence[StepRecord], layout: Layout) -> dict[str, float]:
    """Write the weights and the curve; the numbers of the training."""
    if is_main_process():
        model.save(layout.trained(name))
        write_curve(layout.trained(name).with_name(f"{name}.csv"), history)
    return {**final_losses(history), "parameters": sum(p.numel() for p in model.denoiser.parameters())}


def configuration(params: Params, layout: Layout) -> ModelConfig:
    """The latent model's configuration, with the scales that encode measured."""
    statistics = read_json(layout.encode / "statistics.json")
    scale = 1 / statistics["latent_std"]
    section = params.train.maisi
    spread = {"residual": statistics["residual_std"], "latent": statistics["latent_std"]}[section.target]
    return ModelConfig(
        autoencoder_channels=params.autoencoder.channels,
        norm_groups=params.autoencoder.norm_groups,
        latent_channels=params.autoencoder.latent_channels,
        denoiser_channels=section.channels,
        denoiser_blocks=section.blocks,
        prediction=section.prediction,
        target=section.target,
        conditioning=params.encode.conditioning,
        scale_factor=scale,
        target_scale=1 / (spread * scale),
    )


def latent_pairs(split: Split, config: ModelConfig, params: Params, layout: Layout) -> list[LatentPair]:
    """What the denoiser is shown and what it should say, for every case of a split and every task."""
    pairs = []
    for case in read_cases(layout):
        if case.split != split:
            continue
        latents = load_file(case.latents(layout))
        for task in params.thicken.tasks:
            thin, base, condition = (latents[f"{task.name}/{part}"] for part in ("thin", "base", "condition"))
            target = thin - base if config.target == "residual" else thin
            scale = config.scale_factor
            pairs.append(LatentPair(condition * scale, target * scale * config.target_scale, case.case))
    return pairs
