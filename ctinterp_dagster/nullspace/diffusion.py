"""Null-space diffusion: the expected coefficients of each thick voxel, and a diffusion around them.

c = m + s e: a network tells the expected coefficients m and how far they spread, s; a diffusion model draws e, which is
near unit variance everywhere, so that a quiet liver and a sharp rib are the same task to it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ctinterp_dagster.model.allocator import kept
from ctinterp_dagster.model.blocks import time_features
from ctinterp_dagster.model.files import StoredModel
from ctinterp_dagster.model.forward_process import Prediction, shifted, to_x0
from ctinterp_dagster.model.quantized import Peaks
from ctinterp_dagster.model.sampler import Diffusion, Sampler, sample
from ctinterp_dagster.model.tiles import swept
from ctinterp_dagster.nullspace.basis import GEOMETRY
from ctinterp_dagster.nullspace.unet import SliceUNet

TIMES = 64  # features of the time
SHIFT = 2.0  # of the times that are trained and sampled
RELEASED_GEOMETRY = 3  # numbers of the geometry that condition releases up to 0.7
FARTHEST = 6.0  # spreads from the mean: the rare coefficients beyond are taken for that


@dataclass(frozen=True)
class ExpectationConfig:
    """All that is needed to rebuild an `Expectation` from its tensors.

    Attributes:
        features: channels of its input, as many as `nullspace.basis.NullSpace.features` gives.
        modes: coefficients a thick voxel.
        channels: width of each level of the network of the mean.
        blocks: residual blocks a level.
        spread_channels: width of each level of the network of the spread.
        geometry: how many of the numbers of `nullspace.basis.NullSpace.geometry` condition it; 3 up to release 0.7.
        mirror: whether the mean is that of two passes, the second over the mirror image; so it was up to release 0.7.
    """

    features: int
    modes: int
    channels: tuple[int, ...]
    blocks: int
    spread_channels: tuple[int, ...]
    geometry: int = RELEASED_GEOMETRY
    mirror: bool = True


class Expectation(StoredModel):
    """The expected coefficients of each thick voxel, and the logarithm of how far they spread around them.

    Raises:
        TypeError: the configuration has other numbers of the geometry than are known.

    Source: mean and spread by networks of their own, Nix and Weigend 1994.
    """

    kind = "expectation"
    configuration = ExpectationConfig
    config: ExpectationConfig

    def __init__(self, config: ExpectationConfig) -> None:
        super().__init__(config)
        if config.geometry not in (RELEASED_GEOMETRY, GEOMETRY):
            raise TypeError(
                f"{config.geometry} numbers of geometry, known are {RELEASED_GEOMETRY} and {GEOMETRY}: "
                "was it made by a newer ctinterp?"
            )
        self.mean = SliceUNet(config.features, config.modes, config.channels, config.blocks, config.geometry)
        self.spread = SliceUNet(
            config.features + config.modes, config.modes, config.spread_channels, 1, config.geometry
        )

    def forward(self, features: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the coefficients, and logarithm of their spread.

        No gradient of the spread reaches the mean.

        Args:
            features: (b, features, z, y, x).
            geometry: (b, GEOMETRY), numbers of the grid and the profile, `nullspace.basis.NullSpace.geometry`.

        Returns:
            Mean and log spread, (b, modes, z, y, x) each, of units of 100 HU.
        """
        geometry = geometry[:, : self.config.geometry]
        mean = self.mean(features, geometry)
        return mean, self.spread(torch.cat([features, mean.detach()], dim=1), geometry)

    @kept()
    @torch.inference_mode()
    def expect(
        self,
        features: Tensor,
        geometry: Tensor,
        memory_gib: float | None,
        *,
        mirror: bool = True,
        quantized: bool = False,
    ) -> Tensor:
        """The mean that `forward` gives, in bounded memory, of two mirror images if asked and meant so.

        Args:
            features: (b, features, z, y, x).
            geometry: (b, GEOMETRY).
            memory_gib: bound of the activations; None for none.
            mirror: whether to look at the mirror image too, where the model was trained so.
            quantized: whether the convolutions are in eight bits; of one volume on the CPU.

        Returns:
            (b, modes, z, y, x) in units of 100 HU.

        Raises:
            ParamsError: the memory does not suffice.
        """
        modes, geometry = self.config.modes, geometry[:, : self.config.geometry]
        peaks = self.mean.peaks(features, geometry) if quantized else None

        def seen(one_pass: Callable[[Iterator[Tensor], Tensor, Peaks | None], Iterator[Tensor]]) -> Tensor:
            return swept(lambda chunks: one_pass(chunks, geometry, peaks), features, modes, self.mean.reach, memory_gib)

        mean = seen(self.mean.stream)
        if self.passes(mirror=mirror) > 1:
            mean = 0.5 * (mean + seen(self.mean.mirrored))
        return mean

    @kept()
    @torch.inference_mode()
    def spread_about(
        self, mean: Tensor, features: Tensor, geometry: Tensor, memory_gib: float | None, *, quantized: bool = False
    ) -> Tensor:
        """The logarithm of the coefficients' standard deviation in units of 100 HU, as `forward` gives it.

        Args:
            mean: (b, modes, z, y, x) of these features, as `expect` gives it.
            features: (b, features, z, y, x).
            geometry: (b, GEOMETRY) of the grid and the profile.
            memory_gib: bound of the activations, GiB; None for none.
            quantized: whether the convolutions are in eight bits; of one volume on the CPU.

        Returns:
            (b, modes, z, y, x).

        Raises:
            ParamsError: the memory does not suffice.

        Source: Nix and Weigend 1994.
        """
        inputs, geometry = torch.cat([features, mean], dim=1), geometry[:, : self.config.geometry]
        peaks = self.spread.peaks(inputs, geometry) if quantized else None
        spread = partial(self.spread.stream, condition=geometry, peaks=peaks)
        return swept(spread, inputs, self.config.modes, self.spread.reach, memory_gib)

    def passes(self, *, mirror: bool) -> int:
        """How many passes of the network a mean takes.

        Args:
            mirror: whether the mirror image is to be looked at too; it is where the model was trained so.

        Returns:
            1 or 2.
        """
        return 2 if mirror and self.config.mirror else 1


@dataclass(frozen=True)
class NullSpaceConfig:
    """All that is needed to rebuild a `NullSpaceDiffusion` from its tensors.

    Attributes:
        expectation: of the networks of mean and spread.
        channels: width of each level of the denoiser.
        blocks: residual blocks a level of the denoiser.
        prediction: what the denoiser predicts.
        one_step: whether there is a network beside it that draws a sample in one evaluation; none up to release 0.6.
    """

    expectation: ExpectationConfig
    channels: tuple[int, ...]
    blocks: int
    prediction: Prediction
    one_step: bool = False


class NullSpaceDiffusion(Diffusion):
    """The whole model: expectation, and a denoiser of what is left, e = (c - m) / s.

    Beside the denoiser there may be a network that was distilled from it: what the denoiser makes of some noise in
    many steps, this one makes of it in one.

    Source: a diffusion of the residual of a regression, Mardani et al. 2023 (CorrDiff), section 3; the map from noise
        to sample in one evaluation, Luhman and Luhman 2021 (arXiv 2101.02388), eq. 9.
    """

    kind = "nullspace_diffusion"
    configuration = NullSpaceConfig
    config: NullSpaceConfig

    def __init__(self, config: NullSpaceConfig) -> None:
        super().__init__(config)
        modes, geometry = config.expectation.modes, config.expectation.geometry
        self.expectation = Expectation(config.expectation)
        shape = config.expectation.features + 3 * modes, modes, config.channels, config.blocks
        self.denoiser = SliceUNet(*shape, geometry + TIMES)
        self.one_step = SliceUNet(*shape, geometry) if config.one_step else None

    @property
    def usual_steps(self) -> int:
        """Network evaluations that a sample takes unless others are asked for."""
        return 1 if self.one_step else super().usual_steps

    def denoise(self, noisy: Tensor, inputs: Tensor, geometry: Tensor, t: Tensor) -> Tensor:
        """What the denoiser predicts of e.

        Args:
            noisy: (b, modes, z, y, x) e at time t.
            inputs: (b, features + 2 modes, z, y, x), as `denoiser_inputs` makes them.
            geometry: (b, GEOMETRY).
            t: (b,) in [0, 1].

        Returns:
            (b, modes, z, y, x), as `config.prediction` says.
        """
        prediction: Tensor = self.denoiser(torch.cat([noisy, inputs], dim=1), self._condition(geometry, t))
        return prediction

    def _condition(self, geometry: Tensor, t: Tensor) -> Tensor:
        return torch.cat([geometry[:, : self.config.expectation.geometry], time_features(t)], dim=1)

    @kept()
    def draw(
        self,
        features: Tensor,
        geometry: Tensor,
        expected: tuple[Tensor, Tensor],
        *,
        steps: int,
        seed: int,
        sampler: Sampler,
        memory_gib: float | None,
        quantized: bool = False,
    ) -> Tensor:
        """One sample of the coefficients.

        Args:
            features: (1, features, z, y, x).
            geometry: (1, GEOMETRY).
            expected: mean and log spread of these features, (1, modes, z, y, x) each.
            steps: network evaluations; one is that of the network for it, where there is one.
            seed: of the sample.
            sampler: `ddim`, `adams` or `ddpm`; only the last draws new noise at each step.
            memory_gib: bound of the networks' working memory; None for none.
            quantized: whether the convolutions are in eight bits; on the CPU.

        Returns:
            (1, modes, z, y, x) in units of 100 HU.

        Raises:
            ParamsError: the memory does not suffice, or there is no such sampler.
        """
        mean, log_spread = expected
        fixed = denoiser_inputs(features, mean, log_spread)
        modes = self.config.expectation.modes

        def answer(network: SliceUNet, noisy: Tensor, condition: Tensor) -> Tensor:
            x = torch.cat([noisy, fixed], dim=1)
            peaks = network.peaks(x, condition, guide=modes) if quantized else None
            stream = partial(network.stream, condition=condition, peaks=peaks)
            return swept(stream, x, modes, network.reach, memory_gib)

        def predict_x0(noisy: Tensor, t: Tensor) -> Tensor:
            if self.one_step and steps == 1:
                return answer(self.one_step, noisy, geometry[:, : self.config.expectation.geometry])
            output = answer(self.denoiser, noisy, self._condition(geometry, t))
            return to_x0(output, noisy, t, self.config.prediction)

        size = (modes, *features.shape[2:])
        drawn = sample(
            predict_x0, size, steps=steps, seeds=[seed], sampler=sampler, shift=SHIFT, device=features.device
        )
        return mean + log_spread.exp() * drawn

    def work(self, evaluations: int, *, mirror: bool) -> float:
        """What a thick voxel costs, in the units of `Reach.work`, for `tiles.watched`.

        Args:
            evaluations: of the denoiser; 0 for the mean alone.
            mirror: whether the mean is that of the volume and of its mirror image.

        Returns:
            Work a voxel, of all passes of all networks.
        """
        mean, spread = self.expectation.mean.reach, self.expectation.spread.reach
        drawn = spread.work + evaluations * self.denoiser.reach.work if evaluations else 0.0
        return self.expectation.passes(mirror=mirror) * mean.work + drawn


def random_times(count: int, generator: torch.Generator) -> Tensor:
    """Times of a training, (count,): uniform in [0, 1], then shifted as the sampler's are."""
    return shifted(torch.rand(count, generator=generator), SHIFT)


def denoiser_inputs(features: Tensor, mean: Tensor, log_spread: Tensor) -> Tensor:
    """What the denoiser sees beside the noisy coefficients.

    Args:
        features: (b, FEATURES, z, y, x).
        mean: (b, MODES, z, y, x).
        log_spread: like `mean`.

    Returns:
        (b, FEATURES + 2 MODES, z, y, x).
    """
    return torch.cat([features, mean, log_spread], dim=1)


def standardised(coefficients: Tensor, mean: Tensor, log_spread: Tensor) -> Tensor:
    """Coefficients c as the denoiser sees them, (c - m) / s, limited to 6 standard deviations.

    Args:
        coefficients: (b, modes, z, y, x) in units of 100 HU.
        mean: m, the same shape and unit.
        log_spread: logarithm of s, the same shape.

    Returns:
        In [-6, 6], of the shape of `coefficients`.
    """
    return ((coefficients - mean) / log_spread.exp()).clamp(-FARTHEST, FARTHEST)


def narrower(channels: Sequence[int]) -> tuple[int, ...]:
    """Widths of the network of the spread, which has an easier task than that of the mean: a quarter, 16 at least."""
    return tuple(max(16, width // 4) for width in channels)


def widened(tensors: Mapping[str, Tensor], old: ExpectationConfig, new: ExpectationConfig) -> dict[str, Tensor]:
    """The weights of a model for one that knows more cosines, is conditioned on more, and gives the same.

    What is new has zero weights.

    Args:
        tensors: of a `NullSpaceDiffusion`, by their names there.
        old: configuration of the expectation that they are of.
        new: of the one that they are for, of the same widths.

    Returns:
        By name, for a model of the configuration `new`.

    Source: Chen et al. 2016, Net2Net (arXiv 1511.05641), a network of the same function.
    """
    modes, geometry = (old.modes, new.modes), (old.geometry, new.geometry)
    features = (old.features, new.features)  # the cosines of the base are the last of them
    networks = {
        "expectation.mean": ([features], [geometry]),
        "expectation.spread": ([features, modes], [geometry]),
        "denoiser": ([modes, features, modes, modes], [geometry, (TIMES, TIMES)]),
        "one_step": ([modes, features, modes, modes], [geometry]),
    }
    grown = dict(tensors)
    for network, (inputs, condition) in networks.items():
        if f"{network}.conv_in.weight" not in tensors:  # there may be no network for one step
            continue
        layers = {"conv_in.weight": (1, inputs), "embed.0.weight": (1, condition)}
        layers |= {f"conv_out.{part}": (0, [modes]) for part in ("weight", "bias")}
        for layer, (axis, parts) in layers.items():
            grown[f"{network}.{layer}"] = _with_zeros(tensors[f"{network}.{layer}"], axis, parts)
    return grown


def _with_zeros(tensor: Tensor, axis: int, parts: Sequence[tuple[int, int]]) -> Tensor:
    """The parts of an axis, each (old, new) long, with zeros at the end of each."""
    split = tensor.split([old for old, _ in parts], dim=axis)
    shapes = [[new - old if n == axis else size for n, size in enumerate(tensor.shape)] for old, new in parts]
    return torch.cat(
        [t for part, shape in zip(split, shapes, strict=True) for t in (part, part.new_zeros(shape))], axis
    )
