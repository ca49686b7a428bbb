"""The whole model: an autoencoder, a denoiser in its latent space, and what ties them together."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ctinterp_dagster.errors import CheckpointError, MissingInputError, ParamsError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.model.denoiser import Denoiser
from ctinterp_dagster.model.diffusion import Prediction, to_x0
from ctinterp_dagster.model.sampler import denoise_tiled, sample
from ctinterp_dagster.records import whole_file

Target = Literal["residual", "latent"]
Conditioning = Literal["encoded_interpolation", "interpolated_latent"]


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to rebuild a model from its tensors.

    Attributes:
        autoencoder_channels: width of the autoencoder's three levels.
        norm_groups: groups of the autoencoder's group norms.
        latent_channels: channels of the latent.
        denoiser_channels: width of the denoiser's three levels.
        denoiser_blocks: residual blocks a level of the denoiser.
        prediction: what the denoiser predicts.
        target: what is denoised: the thin latent minus the latent of the interpolated volume, or the thin latent.
        conditioning: how the thick scan is shown to the denoiser.
        scale_factor: 1 / standard deviation of the training latents (latent diffusion's scale factor).
        target_scale: 1 / standard deviation of the denoised target, in units of scaled latents.

    Source: Rombach et al. 2022, section 4.3.2 and appendix G (scale factor of a latent).
    """

    autoencoder_channels: tuple[int, int, int]
    norm_groups: int
    latent_channels: int
    denoiser_channels: tuple[int, int, int]
    denoiser_blocks: int
    prediction: Prediction
    target: Target
    conditioning: Conditioning
    scale_factor: float
    target_scale: float


class LatentDiffusion(nn.Module):
    """Latents of thin volumes, drawn given the latent of the thick one.

    The latents that go in and out are scaled by `scale_factor`, shape (batch, latent channel, z/4, y/4, x/4).
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the model with random weights."""
        super().__init__()
        self.config = config
        self.autoencoder = MaisiAutoencoder(
            channels=config.autoencoder_channels,
            latent_channels=config.latent_channels,
            norm_groups=config.norm_groups,
        )
        self.denoiser = Denoiser(
            latent_channels=config.latent_channels,
            condition_channels=config.latent_channels,
            channels=config.denoiser_channels,
            blocks=config.denoiser_blocks,
        )

    def encode(self, unit: Tensor, memory_gib: float | None = None) -> Tensor:
        """The mean latent of a volume in unit range, (batch, 1, z, y, x), scaled."""
        return self.autoencoder.encode(unit, memory_gib=memory_gib).mean * self.config.scale_factor

    def decode(self, latent: Tensor, size_zyx: tuple[int, int, int], memory_gib: float | None = None) -> Tensor:
        """The volume in unit range, (batch, 1, *size_zyx), of a scaled latent."""
        return self.autoencoder.decode(latent / self.config.scale_factor, size_zyx, memory_gib=memory_gib)

    def sample(
        self,
        *,
        condition: Tensor,
        base: Tensor,
        steps: int,
        seeds: Sequence[int],
        eta: float,
        memory_gib: float,
    ) -> Tensor:
        """Draw one thin latent a seed.

        Args:
            condition: (1, channel, z, y, x), what the denoiser sees of the thick scan.
            base: the same shape, the latent of the interpolated volume, to which a residual is added.
            steps: network evaluations a sample.
            seeds: one a sample.
            eta: 0 for DDIM, 1 for DDPM.
            memory_gib: bound of the denoiser's activations, kept by working in tiles.

        Returns:
            (len(seeds), channel, z, y, x), scaled latents.
        """

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            shown = condition.expand(noisy.shape[0], -1, -1, -1, -1)
            output = denoise_tiled(self.denoiser, noisy, shown, t, memory_gib=memory_gib)
            return to_x0(output, noisy, t, self.config.prediction)

        drawn = sample(predict_x0, tuple(base.shape[1:]), steps=steps, seeds=seeds, eta=eta, device=base.device)
        drawn = drawn / self.config.target_scale
        return base + drawn if self.config.target == "residual" else drawn

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write one safetensors file: tensors and, as metadata, the configuration.

        Args:
            path: the file.
            dtype: how the numbers are stored; float16 halves the file, and `load` gives float32 again.
        """
        tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in self.state_dict().items()}
        with whole_file(path) as partial:
            save_file(tensors, partial, metadata={"ctinterp": json.dumps(asdict(self.config), sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "LatentDiffusion":
        """Read what `save` wrote.

        Raises:
            MissingInputError: the file is not there.
            CheckpointError: it is not a ctinterp model, or is truncated.
        """
        if not path.exists():
            raise MissingInputError(f"{path} is missing: train a model (`dvc repro`) or leave out --model")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
        if "ctinterp" not in metadata:
            raise CheckpointError(f"{path} has no ctinterp configuration: expected a model written by the train stage")
        try:
            model = cls(TypeAdapter(ModelConfig).validate_json(metadata["ctinterp"]))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise CheckpointError(f"{path} has a configuration of another version: {wrong}") from error
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        if missing or unexpected:
            raise CheckpointError(f"{path} lacks {sorted(missing)[:3]} and has unknown {sorted(unexpected)[:3]}")
        return model.eval()


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        ParamsError: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ParamsError("device cuda is not there: use cpu or auto, or install a torch that was built for your GPU")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
