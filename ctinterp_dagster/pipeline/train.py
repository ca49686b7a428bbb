"""Which denoiser? Latent diffusion on the encoded cases."""

import logging
from collections.abc import Mapping

import torch
from safetensors.torch import load_file

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.latent_diffusion import LatentDiffusion, ModelConfig
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline.cases import read_cases
from ctinterp_dagster.pipeline.training import (
    final_losses,
    is_main_process,
    loop_settings,
    resumable,
    watched,
    write_curve,
)
from ctinterp_dagster.records import code_version, file_hash, read_json, write_json
from ctinterp_dagster.scan.split import Split
from ctinterp_dagster.training.denoiser import train_denoiser
from ctinterp_dagster.training.latents import LatentPair, PatchSettings

logger = logging.getLogger(__name__)


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/train/model.safetensors` (autoencoder and denoiser), its metrics and its curve."""
    section, reports = params.train, layout.report("train")
    torch.manual_seed(params.base.seed)
    model = LatentDiffusion(configuration(params, layout))
    model.autoencoder.load_pretrained_weights(layout.autoencoder / "autoencoder.safetensors")
    recipe = {
        "section": section.model_dump(),
        "base": params.base.model_dump(),
        "code": code_version("model", "training", "pipeline/train.py"),
        "data": file_hash(layout.encode / "manifest.json") + file_hash(layout.ingest / "cases.csv"),
    }
    with resumable(layout.train, recipe) as checkpoint, watched("denoiser", section.steps) as on_step:
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
        metrics = final_losses(history)
        if is_main_process():
            model.save(layout.train / "model.safetensors")
            write_curve(reports / "curve.csv", history)
            parameters = sum(p.numel() for p in model.denoiser.parameters())
            write_json(reports / "metrics.json", {**metrics, "parameters": parameters})
    return metrics


def configuration(params: Params, layout: Layout) -> ModelConfig:
    """The model's configuration, with the scales that encode measured."""
    statistics = read_json(layout.encode / "statistics.json")
    scale = 1 / statistics["latent_std"]
    spread = {"residual": statistics["residual_std"], "latent": statistics["latent_std"]}[params.train.target]
    return ModelConfig(
        autoencoder_channels=params.autoencoder.channels,
        norm_groups=params.autoencoder.norm_groups,
        latent_channels=params.autoencoder.latent_channels,
        denoiser_channels=params.train.channels,
        denoiser_blocks=params.train.blocks,
        prediction=params.train.prediction,
        target=params.train.target,
        conditioning=params.encode.conditioning,
        scale_factor=scale,
        target_scale=1 / (spread * scale),
    )


def latent_pairs(split: Split, config: ModelConfig, params: Params, layout: Layout) -> list[LatentPair]:
    """What the denoiser is shown and what it should say, for every case of a split and every profile."""
    pairs = []
    for case in read_cases(layout):
        if case.split != split:
            continue
        latents = load_file(case.latents(layout))
        for profile in params.thicken.profiles:
            base, condition = latents[f"{profile}/base"], latents[f"{profile}/condition"]
            target = latents["thin"] - base if config.target == "residual" else latents["thin"]
            pairs.append(
                LatentPair(condition * config.scale_factor, target * config.scale_factor * config.target_scale)
            )
    return pairs
