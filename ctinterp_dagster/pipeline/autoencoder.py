"""Which latent space? A MAISI checkpoint if there is one, else one of the same family from the training volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ctinterp_dagster.errors import CheckpointError, MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MEMORY_GIB, MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.linear_start import begin_linear
from ctinterp_dagster.params import Autoencoder, Params
from ctinterp_dagster.pipeline.trainings import training
from ctinterp_dagster.training.autoencoder import ReconstructionObjective, VolumeCrops, measure_reconstruction
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import StepRecord

VALIDATION_CROPS = 8
START_BATCHES = 32  # of crops that the linear autoencoder is fitted to, with which a training from scratch begins
KL_WEIGHT = 1e-7  # of the Kullback-Leibler term; MAISI's own (Guo et al. 2024, arXiv 2409.11169)


def build(section: Autoencoder, root: Path) -> MaisiAutoencoder:
    """The autoencoder of the checkpoint, or one of the configured width with random weights and one group a norm.

    Args:
        section: of the parameters.
        root: where the checkpoint's path begins.

    Returns:
        The network on the CPU.

    Raises:
        MissingInputError: the checkpoint that the parameters name is not there.
        CheckpointError: it is not one of this architecture and width.
        ParamsError: a width that cannot be.
    """
    if not section.checkpoint:
        return MaisiAutoencoder(section.channels, norm_groups=1)
    path = root / section.checkpoint
    if not path.exists():
        raise MissingInputError(
            f"autoencoder.checkpoint {path} is not there: get NVIDIA's MAISI autoencoder and `ctinterp autoencoder "
            "import` it (docs/maisi.md), or set it to an empty string to train one"
        )
    autoencoder = load_autoencoder(path)
    if autoencoder.architecture.channels != section.channels:
        raise CheckpointError(
            f"autoencoder.checkpoint {path} has the widths {autoencoder.architecture.channels}, autoencoder.channels "
            f"are {section.channels}: set them to those of the file"
        )
    return autoencoder.requires_grad_()


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/autoencoder/autoencoder.safetensors`, its metrics and its curve.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        `tensors_loaded` of the checkpoint, if there is one, and what `train` shows, if it is trained.

    Raises:
        MissingInputError: the checkpoint that the parameters name is not there.
        CheckpointError: it is not one of this architecture and width.
        ParamsError: a width that cannot be, or a volume is smaller than a crop.
        TrainingError: there is no training volume, or a loss is not finite.
    """
    section = params.autoencoder
    torch.manual_seed(params.base.seed)
    autoencoder = build(section, layout.root)
    loaded = {"tensors_loaded": len(autoencoder.state_dict())} if section.checkpoint else {}
    if section.checkpoint and not section.finetune:
        write_results(autoencoder, [], loaded, layout)
        return loaded
    return loaded | train(autoencoder, params, layout)


def train(autoencoder: MaisiAutoencoder, params: Params, layout: Layout) -> dict[str, float]:
    """Train on the thin training volumes, from scratch after a linear start; an interrupted training goes on.

    Args:
        autoencoder: changed in place.
        params: of all stages.
        layout: where things are.

    Returns:
        What the stage shows: the last losses, and how well unseen volumes are reconstructed.

    Raises:
        ParamsError: a volume is smaller than a crop.
        TrainingError: there is no training volume, or a loss is not finite.
    """
    section = params.autoencoder
    start = [layout.root / section.checkpoint] if section.checkpoint else []
    files = [layout.ingest / "cases.csv", layout.ingest / "manifest.json", *start]
    name = training.identity(Path(__file__), [params.base, params.loop, section], files)
    settings = training.loop_settings(section, section.batch_size, params.loop, params.base)

    def crops(volumes: Sequence[ThinVolume]) -> VolumeCrops:
        return VolumeCrops(volumes, section.patch_zyx, section.batch_size, autoencoder.latent_channels)

    unseen = training.thin_volumes(layout, "val")
    validation = training.fixed_batches(crops, unseen, VALIDATION_CROPS, settings)
    objective = ReconstructionObjective(autoencoder, KL_WEIGHT)
    batches = crops(training.thin_volumes(layout, "train"))
    if not section.checkpoint:
        begin_linear(autoencoder, torch.cat([batch.crop for batch in batches.fixed(START_BATCHES, settings.seed)]))
    with training.train(objective, batches, validation, settings, folder=layout.autoencoder, name=name) as history:
        metrics = training.final_losses(history)
        if training.is_main_process():
            if unseen:
                metrics |= asdict(measure_reconstruction(autoencoder, [v.hu for v in unseen], MEMORY_GIB))
            write_results(autoencoder, history, metrics, layout)
    return metrics


def write_results(
    autoencoder: MaisiAutoencoder, history: Sequence[StepRecord], metrics: Mapping[str, float], layout: Layout
) -> None:
    """Write the weights under MAISI's names, the curve and the metrics.

    Args:
        autoencoder: trained or loaded, on any device.
        history: of its training; empty where there was none.
        metrics: by name.
        layout: where things are.
    """
    autoencoder.save(layout.autoencoder / "autoencoder.safetensors")
    training.write_reports(layout.report("autoencoder"), history, metrics, autoencoder)
