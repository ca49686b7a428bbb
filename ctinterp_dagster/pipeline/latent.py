"""Which latent denoiser? Diffusion of the latents that `encode` wrote, which the table of methods shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from ctinterp_dagster.latent.diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.latent.objective import DenoisingObjective
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.pipeline.trainings import training
from ctinterp_dagster.records import read_json
from ctinterp_dagster.scan.split import Split

# No parameters: chosen once, or true of all scans (docs/decisions/0010-what-the-trainings-share.md).
VALIDATION_PATCHES = 32  # with times on a grid
FLIP_AXES = (1, 2)  # y and x; patients are not mirrored head to feet
ONE_STEP_SHARE = 0.25  # of samples at t = 1, where the one-step estimate of the mean is made


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/latent/model.safetensors`, its metrics and its curve.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `loss` and `val_loss` of the latent denoiser.

    Raises:
        MissingInputError: ingest, autoencoder or encode has not run.
        CheckpointError: the autoencoder cannot be read.
        TrainingError: no case is in train, or a loss is not finite.
    """
    section = params.latent
    weights = layout.autoencoder / "autoencoder.safetensors"
    autoencoder = load_autoencoder(weights)
    torch.manual_seed(params.base.seed)
    model = LatentDiffusion(configuration(autoencoder, params, layout))
    model.autoencoder = autoencoder
    latents = [layout.encode / "manifest.json", layout.encode / "statistics.json"]
    sections = [params.base, params.loop, params.thicken, params.encode, section]
    name = training.identity(Path(__file__), sections, [layout.ingest / "cases.csv", weights, *latents])
    patch = PatchSettings(section.patch_zyx, FLIP_AXES, ONE_STEP_SHARE)
    settings = training.loop_settings(section, section.batch_size, params.loop, params.base)

    def patches(pairs: Sequence[LatentPair]) -> LatentPatches:
        return LatentPatches(pairs, patch, section.batch_size)

    train = patches(latent_pairs("train", model.config, params, layout))
    validation = training.fixed_batches(
        patches, latent_pairs("val", model.config, params, layout), VALIDATION_PATCHES, settings
    )
    objective = DenoisingObjective(model.denoiser, section.prediction)
    with training.train(objective, train, validation, settings, folder=layout.latent, name=name) as history:
        metrics = training.final_losses(history)
        if training.is_main_process():
            model.save(layout.trained("latent"))
            training.write_reports(layout.report("latent"), history, metrics, model.denoiser)
    return metrics


def configuration(autoencoder: MaisiAutoencoder, params: Params, layout: Layout) -> ModelConfig:
    """The model's configuration, with the scales that `encode` measured.

    Args:
        autoencoder: whose architecture it repeats.
        params: of all stages.
        layout: where things are.

    Returns:
        The configuration, from which a file rebuilds the model.

    Raises:
        MissingInputError: encode has not run.
    """
    statistics = read_json(layout.encode / "statistics.json")
    scale = 1 / statistics["latent_std"]
    section, of = params.latent, autoencoder.architecture
    fine, middle, coarse = of.channels
    spread = {"residual": statistics["residual_std"], "latent": statistics["latent_std"]}[section.target]
    return ModelConfig(
        autoencoder_channels=(fine, middle, coarse),
        norm_groups=of.norm_groups,
        latent_channels=of.latent_channels,
        denoiser_channels=section.channels,
        denoiser_blocks=section.blocks,
        prediction=section.prediction,
        target=section.target,
        conditioning=params.encode.conditioning,
        scale_factor=scale,
        target_scale=1 / (spread * scale),
    )


def latent_pairs(split: Split, config: ModelConfig, params: Params, layout: Layout) -> list[LatentPair]:
    """Condition and target of the denoiser, for every case of a split and every task.

    Args:
        split: the split.
        config: of the model: the target and the scales.
        params: of all stages.
        layout: where things are.

    Returns:
        Pairs of unit spread; empty where the split has no case.

    Raises:
        MissingInputError: encode has not run, or no case is in the split.
        TrainingError: latents of a case lie on different grids.
    """
    pairs = []
    for case in read_cases(layout):
        if case.split != split:
            continue
        latents = load_file(case.latents(layout))
        for task in params.thicken.tasks:
            thin, base, condition = (latents[f"{task.name}/{part}"] for part in ("thin", "base", "condition"))
            target = thin - base if config.target == "residual" else thin
            scaled = config.to_target(config.scale(target))
            pairs.append(LatentPair(config.scale_condition(condition), scaled, case.case))
    return pairs
