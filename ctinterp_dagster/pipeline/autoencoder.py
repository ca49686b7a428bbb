"""Which latent space? A MAISI checkpoint if there is one, else one of the same family from the training volumes."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.interpolate import to_unit
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.params import Autoencoder, Params
from ctinterp_dagster.pipeline.cases import read_cases
from ctinterp_dagster.pipeline.training import final_losses, loop_settings, resumable, step_logger, write_curve
from ctinterp_dagster.records import code_version, file_hash, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.split import Split
from ctinterp_dagster.training.autoencoder import train_autoencoder

logger = logging.getLogger(__name__)


def build(section: Autoencoder) -> MaisiAutoencoder:
    """An autoencoder of the configured width with random weights."""
    return MaisiAutoencoder(
        channels=section.channels, latent_channels=section.latent_channels, norm_groups=section.norm_groups
    )


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/autoencoder/autoencoder.safetensors`, its metrics and its curve.

    Raises:
        MissingInputError: the checkpoint that the parameters name is not there.
        CheckpointError: it is not one of MAISI's autoencoder.
    """
    section = params.autoencoder
    reports = layout.report("autoencoder")
    torch.manual_seed(params.base.seed)
    autoencoder = build(section)
    if section.checkpoint:
        path = Path(section.checkpoint)
        if not path.exists():
            raise MissingInputError(
                f"autoencoder.checkpoint {path} is not there: download NVIDIA's MAISI autoencoder.pt (docs/maisi.md), "
                "or set it to an empty string to train one"
            )
        statistics = autoencoder.load_pretrained_weights(path)
        metrics: dict[str, float] = {"tensors_loaded": statistics.loaded}
        write_curve(reports / "curve.csv", [])
        save(autoencoder, layout)
    else:
        recipe = {
            "section": section.model_dump(),
            "base": params.base.model_dump(),
            "code": code_version("model", "training", "pipeline/autoencoder.py"),
            "data": file_hash(layout.ingest / "cases.csv") + file_hash(layout.ingest / "manifest.json"),
        }
        with resumable(layout.autoencoder, recipe) as checkpoint:
            history = train_autoencoder(
                autoencoder,
                unit_volumes(layout, "train"),
                unit_volumes(layout, "val"),
                crop_zyx=section.patch_zyx,
                kl_weight=section.kl_weight,
                settings=loop_settings(section, params.base),
                checkpoint=checkpoint,
                on_step=step_logger(section.steps),
            )
            save(autoencoder, layout)
        metrics = final_losses(history)
        write_curve(reports / "curve.csv", history)
    write_json(reports / "metrics.json", {**metrics, "parameters": sum(p.numel() for p in autoencoder.parameters())})
    return metrics


def save(autoencoder: MaisiAutoencoder, layout: Layout) -> None:
    """Write the weights under MAISI's names."""
    layout.autoencoder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in autoencoder.state_dict().items()}
    save_file(tensors, layout.autoencoder / "autoencoder.safetensors")


def unit_volumes(layout: Layout, split: Split) -> list[Tensor]:
    """The thin volumes of a split in MAISI's unit range; empty if no case is in it."""
    cases = [case for case in read_cases(layout) if case.split == split]
    return [to_unit(torch.from_numpy(read_scan(case.thin(layout)).volume.hu))[0, 0] for case in cases]
