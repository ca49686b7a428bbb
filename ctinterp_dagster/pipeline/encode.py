"""What are thin and thick in latent units?"""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctinterp_dagster.interpolate import gather_evidence, to_unit
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.latent_diffusion import pick_device
from ctinterp_dagster.params import Params, Profile
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.pipeline.autoencoder import build
from ctinterp_dagster.pipeline.cases import Case, read_cases
from ctinterp_dagster.records import CaseFolder, code_version, write_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)


@torch.inference_mode()
def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write the raw latents of every training and validation case and profile, and their scale.

    `<profile>/<case>.safetensors` holds `thin`, `base` and `condition`, (channel, z/4, y/4, x/4), not yet scaled;
    `statistics.json` holds the standard deviations over the training cases that scale them.
    """
    section, factor = params.encode, params.thicken.factor
    weights = layout.autoencoder / "autoencoder.safetensors"
    autoencoder = build(params.autoencoder)
    autoencoder.load_pretrained_weights(weights)
    autoencoder = autoencoder.to(pick_device(params.base.device)).eval()
    code = code_version("scan", "physics", "model", "interpolate.py", "pipeline/encode.py")
    recipe = {"encode": section.model_dump(), "base": params.base.model_dump(), "factor": factor, "code": code}
    folder = CaseFolder(layout.encode, recipe)
    cases = [case for case in read_cases(layout) if case.split != "test"]
    jobs = [(case, profile) for case in cases for profile in params.thicken.profiles]
    made = 0
    for case, profile in jobs:

        def make(paths: list[Path], case: Case = case, profile: Profile = profile) -> None:
            save_file(encode_case(case, profile, factor, autoencoder, params, layout), paths[0])

        inputs = [case.thin(layout), case.thick(layout, profile), weights]
        outputs = [str(case.latents(layout, profile).relative_to(layout.encode))]
        ran = folder.make(f"{profile}/{case.case}", inputs, outputs, make)
        made += ran
        logger.info("case=%s profile=%s %s", case.case, profile, "encoded" if ran else "unchanged")
    folder.keep_only(f"{profile}/{case.case}" for case, profile in jobs)
    training = [case.latents(layout, profile) for case, profile in jobs if case.split == "train"]
    statistics = measure(training)
    write_json(layout.encode / "statistics.json", statistics)
    return {"cases": len(jobs), "made": made, **statistics}


def encode_case(
    case: Case, profile: Profile, factor: int, autoencoder: MaisiAutoencoder, params: Params, layout: Layout
) -> dict[str, Tensor]:
    """The raw latents of one case under one profile."""
    device = pick_device(params.base.device)

    def encode(unit: Tensor) -> Tensor:
        return autoencoder.encode(unit.to(device), memory_gib=params.encode.memory_gib).mean

    thick = torch.from_numpy(read_scan(case.thick(layout, profile)).volume.hu)
    operator = ThickeningOperator.from_factor(thick.shape[0] * factor, factor, profile)
    thin = torch.from_numpy(read_scan(case.thin(layout)).volume.hu[: operator.n_thin])
    evidence = gather_evidence(thick, operator, encode, params.encode.conditioning)
    latents = {
        "thin": encode(to_unit(thin)),
        "base": evidence.base,
        "condition": evidence.condition,
    }
    return {name: latent[0].cpu().contiguous() for name, latent in latents.items()}


def measure(files: list[Path]) -> dict[str, float]:
    """Standard deviations over all latents of the training cases: of the thin ones, and of thin minus base."""
    count, sums, squares = 0, torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for file in files:
        latents = load_file(file)
        values = torch.stack([latents["thin"], latents["thin"] - latents["base"]]).double().flatten(1)
        count += values.shape[1]
        sums += values.sum(1)
        squares += values.square().sum(1)
    std = (squares / count - (sums / count).square()).sqrt()
    return {"latent_std": float(std[0]), "residual_std": float(std[1])}
