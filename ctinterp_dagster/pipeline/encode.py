"""What are thin and thick in latent units?"""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctinterp_dagster.import_closure import code_version
from ctinterp_dagster.latent.conditioning import conditions_of
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MEMORY_GIB, MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.params import Params, ThickTask
from ctinterp_dagster.physics.measurement import contiguous
from ctinterp_dagster.pipeline.common.cases import Case, read_cases
from ctinterp_dagster.records import CaseFolder, CaseJob, write_json
from ctinterp_dagster.scan.io import read_scan


@torch.inference_mode()
def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the raw latents of every training and validation case, and their scale.

    `<case>.safetensors` holds for each task `<task>/thin`, `<task>/base` and `<task>/condition`, all
    (channel, z/4, y/4, x/4) with latents not yet scaled; `statistics.json` holds their standard
    deviations.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        How many cases there are, how many were encoded now, and the standard deviations.

    Raises:
        MissingInputError: a volume or the autoencoder is not there.
        CheckpointError: the autoencoder cannot be read.
    """
    section, tasks = params.encode, params.thicken.tasks
    weights = layout.autoencoder / "autoencoder.safetensors"
    autoencoder = load_autoencoder(weights).to(pick_device(params.base.device))
    recipe = {
        "encode": section.model_dump(),
        "base": params.base.model_dump(),
        "thicken": params.thicken.model_dump(),
        "code": code_version(Path(__file__)),
    }
    folder = CaseFolder(layout.encode, recipe)
    cases = [case for case in read_cases(layout) if case.split != "test"]

    def job(case: Case) -> CaseJob:
        inputs = [case.thin(layout), *(case.thick(layout, task.name) for task in tasks), weights]
        action = partial(write_latents, case, autoencoder, params, layout)
        return CaseJob(case.case, inputs, [case.latents(layout).name], action, f"case={case.case}")

    done = folder.make_all(map(job, cases))
    folder.keep_only(done.cases)
    statistics = latent_scales([case.latents(layout) for case in cases if case.split == "train"], tasks)
    write_json(layout.encode / "statistics.json", statistics)
    return {"cases": len(cases), "made": done.made, **statistics}


def write_latents(case: Case, autoencoder: MaisiAutoencoder, params: Params, layout: Layout, paths: list[Path]) -> None:
    """Write the raw latents of one case, (channel, z/4, y/4, x/4) each, by task and part: thin, base, condition.

    Args:
        case: its volumes are read.
        autoencoder: on the device of `base.device`.
        params: of all stages.
        layout: where things are.
        paths: of the one safetensors file.
    """
    save_file(encode_case(case, autoencoder, params, layout), paths[0])


def encode_case(case: Case, autoencoder: MaisiAutoencoder, params: Params, layout: Layout) -> dict[str, Tensor]:
    """The raw latents of one case, (channel, z/4, y/4, x/4) each, by task and part: thin, base, condition.

    Args:
        case: its volumes are read.
        autoencoder: on the device of `base.device`.
        params: of all stages.
        layout: where things are.

    Returns:
        Tensors on the CPU by `task/part`.

    Raises:
        MissingInputError: a volume is not there.
    """
    device = pick_device(params.base.device)

    def encode(unit: Tensor) -> Tensor:
        return autoencoder.encode(unit.to(device), memory_gib=MEMORY_GIB).mean

    latents: dict[str, Tensor] = {}
    thin_hu = torch.from_numpy(read_scan(case.thin(layout)).volume.hu)
    encoded = cache(lambda depth: encode(volume_to_unit(thin_hu[:depth])))
    for task in params.thicken.tasks:
        measurement = contiguous(read_scan(case.thick(layout, task.name)).volume, task.factor, task.profile)
        operator = measurement.operator
        conditions = conditions_of(measurement.thick_hu, operator, encode, params.encode.conditioning)
        parts = {"thin": encoded(operator.n_thin), "base": conditions.base, "condition": conditions.condition}
        latents |= {f"{task.name}/{part}": latent for part, latent in parts.items()}
    return {name: latent[0].cpu().clone() for name, latent in latents.items()}


def latent_scales(files: Sequence[Path], tasks: Sequence[ThickTask]) -> dict[str, float]:
    """Standard deviations over all latents of the training cases.

    Args:
        files: of the cases, with `<task>/thin` and `<task>/base` (channel, z, y, x).
        tasks: those whose latents count.

    Returns:
        `latent_std` of the thin latents, and `residual_std` of thin minus base, in the autoencoder's own units.
    """
    thin, residual = Moments(), Moments()
    for file in files:
        latents = load_file(file)
        for task in tasks:
            thin.add(latents[f"{task.name}/thin"])
            residual.add(latents[f"{task.name}/thin"] - latents[f"{task.name}/base"])
    return {"latent_std": thin.std, "residual_std": residual.std}


class Moments:
    """Running count, sum and sum of squares in float64."""

    def __init__(self) -> None:
        """Nothing seen."""
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """Take every value of a tensor of any shape."""
        self.count += values.numel()
        self.sum += float(values.double().sum())
        self.squares += float(values.double().square().sum())

    @property
    def std(self) -> float:
        """Standard deviation of all values seen."""
        return math.sqrt(self.squares / self.count - (self.sum / self.count) ** 2)
