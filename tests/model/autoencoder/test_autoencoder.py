"""The autoencoder computes MAISI's function: MONAI's implementation is the oracle."""

from collections.abc import Iterator

import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, Posterior, layers, network
from ctinterp_dagster.model.autoencoder.layers import LocalConv, VolumeNorm
from ctinterp_dagster.scan.window import MAISI as MAISI_WINDOW

TOLERANCE = 1e-5
MAISI = (64, 128, 256)
WIDTHS = [(MAISI, 32), ((16, 32, 64), 8)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def oracle(channels: tuple[int, int, int], groups: int) -> AutoencoderKlMaisi:
    """MONAI's network with weights in which every parameter, norms and biases too, has an effect."""
    torch.manual_seed(0)
    model = AutoencoderKlMaisi(
        spatial_dims=3, in_channels=1, out_channels=1, num_res_blocks=(2, 2, 2), num_channels=channels,
        attention_levels=(False, False, False), latent_channels=4, norm_num_groups=groups, norm_eps=1e-6,
        num_splits=1, save_mem=False,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if "norm" in name or parameter.dim() == 1:
            parameter.data.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def ours(theirs: AutoencoderKlMaisi, channels: tuple[int, int, int], groups: int) -> MaisiAutoencoder:
    model = MaisiAutoencoder(channels, 4, groups).eval()
    model.load_state_dict(theirs.state_dict())
    return model


@pytest.fixture(scope="module", params=WIDTHS, ids=["maisi", "narrow"])
def pair(request: pytest.FixtureRequest) -> tuple[MaisiAutoencoder, AutoencoderKlMaisi]:
    theirs = oracle(*request.param)
    return ours(theirs, *request.param), theirs


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tensors this small cost more to share out than to compute, above all on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def ct_like(size: tuple[int, int, int] = (8, 12, 16)) -> Tensor:
    """Air around an ellipsoid of soft tissue with a bone and noise, in unit range."""
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    radius = z**2 + 1.4 * y**2 + x**2
    noise = 0.01 * torch.randn(size, generator=torch.Generator().manual_seed(1))
    volume = torch.where(radius < 0.8, 0.52 + noise, torch.zeros(()))
    return torch.where((x - 0.3) ** 2 + y**2 < 0.02, 0.9, volume)[None, None]


INPUTS = {
    "noise": torch.rand(1, 1, 8, 16, 12, generator=torch.Generator().manual_seed(2)),
    "ct": ct_like(),
    "air": torch.zeros(1, 1, 8, 12, 8),
    "tissue": torch.full((1, 1, 8, 12, 12), 0.5),
    "batch": torch.rand(2, 1, 8, 8, 12, generator=torch.Generator().manual_seed(3)),
}


@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_mean_log_variance_and_decoded_volume_are_those_of_monai(
    pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], kind: str
) -> None:
    mine, theirs = pair
    mean, std = theirs.encode(INPUTS[kind])
    posterior = mine.encode(INPUTS[kind])
    assert relative_error(posterior.mean, mean) < TOLERANCE
    assert relative_error(posterior.log_variance, 2 * std.log()) < TOLERANCE
    assert relative_error(mine.decode(mean), theirs.decode(mean)) < TOLERANCE


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_each_block_is_that_of_monai(pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], network: str) -> None:
    mine, theirs = pair
    x = INPUTS["ct"] if network == "encoder" else theirs.encode(INPUTS["ct"])[0]
    blocks = list(zip(getattr(mine, network).blocks, getattr(theirs, network).blocks, strict=True))
    assert len(blocks) == 11
    for own, reference in blocks:
        expected = reference(x)
        assert relative_error(own(x), expected) < TOLERANCE
        x = expected


def test_sizes_that_are_not_multiples_of_four_are_padded_with_air_at_the_far_end(
    pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi],
) -> None:
    mine, theirs = pair
    x = ct_like((9, 14, 19))
    padded = torch.zeros(1, 1, 12, 16, 20)
    padded[:, :, :9, :14, :19] = x
    mean, _ = theirs.encode(padded)
    assert relative_error(mine.encode(x).mean, mean) < TOLERANCE
    decoded = mine.decode(mean, (9, 14, 19))
    assert decoded.shape == x.shape
    assert relative_error(decoded, theirs.decode(mean)[:, :, :9, :14, :19]) < TOLERANCE


def test_gradients_are_those_of_monai(pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi]) -> None:
    gradients = []
    for model in pair:
        model.zero_grad()
        with torch.enable_grad():
            encoded = model.encode(INPUTS["batch"])
            mean = encoded.mean if isinstance(encoded, Posterior) else encoded[0]
            model.decode(mean).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if "log_sigma" not in name})
        model.zero_grad()
    for name, gradient in gradients[0].items():
        assert relative_error(gradient, gradients[1][name]) < 1e-3, name


def test_inference_and_training_forward_agree(pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi]) -> None:
    mine, _ = pair
    with torch.enable_grad():
        training = mine.encode(INPUTS["ct"]).mean.detach()
    assert relative_error(mine.encode(INPUTS["ct"]).mean, training) < TOLERANCE


def test_a_constant_group_is_normalised_exactly_where_float32_statistics_lose_all_digits() -> None:
    torch.manual_seed(0)
    mine = MaisiAutoencoder((16, 32, 64), 4, 16).eval()
    single = mine.encode(INPUTS["air"]).mean
    assert relative_error(single, mine.double().encode(INPUTS["air"].double()).mean) < TOLERANCE


# Each known way to load all 130 tensors and compute another function.


def symmetric_padding(self: LocalConv, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
    reach = self.kernel_size[0] // 2
    return functional.conv3d(x, self.weight, self.bias, self.stride, reach)


def nearest_upsampling(self: nn.Module, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def encoder_error(pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], x: Tensor) -> float:
    return relative_error(pair[0].encode(x).mean, pair[1].encode(x)[0])


def decoder_error(pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi]) -> float:
    mean = pair[1].encode(INPUTS["ct"])[0]
    return relative_error(pair[0].decode(mean), pair[1].decode(mean))


@pytest.fixture
def fresh_pair() -> tuple[MaisiAutoencoder, AutoencoderKlMaisi]:
    theirs = oracle((16, 32, 64), 8)
    return ours(theirs, (16, 32, 64), 8), theirs


def test_a_silu_before_the_last_convolution_breaks_parity(
    fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi],
) -> None:
    for part in (fresh_pair[0].encoder, fresh_pair[0].decoder):
        part.blocks[9].silu = True
    assert encoder_error(fresh_pair, INPUTS["ct"]) > 0.1
    assert decoder_error(fresh_pair) > 0.1


def test_symmetric_padding_of_the_strided_convolution_breaks_parity(
    fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalConv, "rows", symmetric_padding)
    assert encoder_error(fresh_pair, INPUTS["ct"]) > 0.1


def test_nearest_upsampling_breaks_parity(
    fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers.Doubling, "rows", nearest_upsampling)
    assert decoder_error(fresh_pair) > 0.05


def test_another_epsilon_breaks_parity_in_air(fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi]) -> None:
    for module in fresh_pair[0].modules():
        if isinstance(module, VolumeNorm):
            module.eps = 1e-5
    assert encoder_error(fresh_pair, INPUTS["air"]) > 2 * TOLERANCE


def test_hu_go_in_as_zero_to_one_and_minus_one_to_one_breaks_parity(
    fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi],
) -> None:
    hu = MAISI_WINDOW.from_unit(INPUTS["ct"])
    assert [float(MAISI_WINDOW.to_unit(value)) for value in (-1000.0, 0.0, 1000.0)] == [0.0, 0.5, 1.0]
    expected = fresh_pair[1].encode(INPUTS["ct"])[0]
    assert relative_error(fresh_pair[0].encode(MAISI_WINDOW.to_unit(hu)).mean, expected) < TOLERANCE
    assert relative_error(fresh_pair[0].encode(hu / 1000).mean, expected) > 0.1


def test_the_log_variance_is_clamped_as_monai_clamps_it(
    fresh_pair: tuple[MaisiAutoencoder, AutoencoderKlMaisi], monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in fresh_pair:
        model.quant_conv_log_sigma.conv.bias.data.copy_(torch.tensor([-100.0, 100.0, 0.0, 1.0]))
    expected = 2 * fresh_pair[1].encode(INPUTS["ct"])[1].log()
    log_variance = fresh_pair[0].encode(INPUTS["ct"]).log_variance
    assert relative_error(log_variance, expected) < TOLERANCE
    assert (log_variance.min(), log_variance.max()) == (-30, 20)
    monkeypatch.setattr(network, "LOG_VARIANCE_RANGE", (-torch.inf, torch.inf))
    assert relative_error(fresh_pair[0].encode(INPUTS["ct"]).log_variance, expected) > 1


# The checkpoint's tensors.


def conv(name: str, out: int, into: int, kernel: int, wrappers: int) -> dict[str, tuple[int, ...]]:
    stem = name + ".conv" * wrappers
    return {f"{stem}.weight": (out, into, kernel, kernel, kernel), f"{stem}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
    shapes = norm(f"{name}.norm1", into) | conv(f"{name}.conv1", out, into, 3, 2)
    shapes |= norm(f"{name}.norm2", out) | conv(f"{name}.conv2", out, out, 3, 2)
    return shapes | (conv(f"{name}.nin_shortcut", out, into, 1, 2) if into != out else {})


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The 130 tensors of NVIDIA's autoencoder.pt."""
    e, d = "encoder.blocks.", "decoder.blocks."
    shapes = conv(e + "0", 64, 1, 3, 2) | conv(e + "3", 64, 64, 3, 3) | conv(e + "6", 128, 128, 3, 3)
    shapes |= block(e + "1", 64, 64) | block(e + "2", 64, 64) | block(e + "4", 64, 128) | block(e + "5", 128, 128)
    shapes |= block(e + "7", 128, 256) | block(e + "8", 256, 256) | norm(e + "9", 256) | conv(e + "10", 4, 256, 3, 2)
    shapes |= conv(d + "0", 256, 4, 3, 2) | conv(d + "3", 256, 256, 3, 3) | conv(d + "6", 128, 128, 3, 3)
    shapes |= block(d + "1", 256, 256) | block(d + "2", 256, 256) | block(d + "4", 256, 128) | block(d + "5", 128, 128)
    shapes |= block(d + "7", 128, 64) | block(d + "8", 64, 64) | norm(d + "9", 64) | conv(d + "10", 1, 64, 3, 2)
    for name in ("quant_conv_mu", "quant_conv_log_sigma", "post_quant_conv"):
        shapes |= conv(name, 4, 4, 1, 1)
    return shapes


def test_names_and_shapes_are_those_of_the_published_checkpoint() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in MaisiAutoencoder().state_dict().items()}
    assert shapes == published_shapes()
    assert len(shapes) == 130
    assert sum(p.numel() for p in MaisiAutoencoder().parameters()) == 20_944_897


def test_the_published_names_are_those_of_monai() -> None:
    assert {n: tuple(t.shape) for n, t in oracle(MAISI, 32).state_dict().items()} == published_shapes()


# The interface.


def test_the_latent_is_four_times_smaller_along_each_axis() -> None:
    model = MaisiAutoencoder((8, 8, 8), 4, 8)
    assert model.encode(torch.zeros(1, 1, 8, 64, 64)).mean.shape == (1, 4, 2, 16, 16)
    assert model.decode(torch.zeros(1, 4, 2, 16, 16)).shape == (1, 1, 8, 64, 64)


def test_a_sample_has_the_posterior_moments_and_follows_its_seed() -> None:
    posterior = Posterior(
        torch.full((1, 4, 20, 20, 20), 3.0), torch.full((1, 4, 20, 20, 20), 2 * torch.tensor(0.5).log())
    )
    first, again, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(first.std()) == pytest.approx(0.5, abs=0.02)


def test_forward_reconstructs_the_size_of_its_input() -> None:
    model = MaisiAutoencoder((8, 8, 8), 4, 8)
    reconstruction, posterior = model(torch.zeros(1, 1, 6, 9, 11), torch.Generator().manual_seed(0))
    assert reconstruction.shape == (1, 1, 6, 9, 11)
    assert posterior.mean.shape == (1, 4, 2, 3, 3)


@pytest.mark.parametrize(
    ("channels", "latent_channels", "groups", "message"),
    [
        ((16, 32, 60), 4, 16, r"\(16, 32, 60\): expected multiples of norm_groups=16"),
        ((16, 32, 64), 4, 0, "multiples of norm_groups=0"),
        ((0, 32, 64), 4, 16, "expected multiples"),
        ((16, 32), 4, 16, "expected 3 widths"),
        ((16, 32, 64), 0, 16, "latent_channels=0: expected at least 1"),
    ],
)
def test_impossible_widths_are_refused(
    channels: tuple[int, ...], latent_channels: int, groups: int, message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        MaisiAutoencoder(channels, latent_channels, groups)


def test_tensors_of_the_wrong_shape_are_refused() -> None:
    model = MaisiAutoencoder((8, 8, 8), 4, 8)
    with pytest.raises(ParamsError, match=r"shape \(8, 16, 16\) cannot be encoded: expected \(batch, 1, z, y, x\)"):
        model.encode(torch.zeros(8, 16, 16))
    with pytest.raises(ParamsError, match=r"cannot be decoded: expected \(batch, 4, z, y, x\)"):
        model.decode(torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(ParamsError, match=r"size_zyx=\(9, 16, 16\) does not fit a latent of \(2, 4, 4\)"):
        model.decode(torch.zeros(1, 4, 2, 4, 4), (9, 16, 16))
