"""Weights of MAISI's autoencoder: are they whole and safe, and how good are they?"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.cli.actions.jobs import fit
from ctinterp_dagster.cli.actions.outputs import check_files
from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.progress import progress
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.evaluation.metrics import psnr_db, slice_mse, ssim_axial
from ctinterp_dagster.latent.ceiling import autoencoder_ceiling
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder, load_autoencoder
from ctinterp_dagster.model.autoencoder.published import RELEASES, refuse_other_networks, scale_factor
from ctinterp_dagster.model.autoencoder.unit_range import volume_to_unit
from ctinterp_dagster.model.autoencoder.weights import read_weights
from ctinterp_dagster.model.device import pick_device
from ctinterp_dagster.pipeline.testset.scoring import ResourceMeter
from ctinterp_dagster.records import write_json
from ctinterp_dagster.scan.phantom import phantom
from ctinterp_dagster.scan.window import MAISI, SOFT_TISSUE

PHANTOM_ZYX = (16, 64, 64)
SCORED_WINDOWS = {"-1000..1000": MAISI, "-160..240": SOFT_TISSUE}
PARAMETERS = 20_944_897  # of MAISI's own widths
PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LINE_WIDTH = 80


@dataclass(frozen=True)
class Verified:
    """What is known of a file of weights that was accepted.

    Attributes:
        tensors: how many there are; none is missing, surplus, misshapen or not finite.
        parameters: numbers in them.
        sha256: of the file.
        dtype: of the tensors in the file.
        latent_mean: of the latent of the built-in phantom, raw.
        latent_std: its standard deviation.
    """

    tensors: int
    parameters: int
    sha256: str
    dtype: str
    latent_mean: float
    latent_std: float


def verify_file(path: Path) -> tuple[MaisiAutoencoder, Verified]:
    """Load a file of weights and encode the phantom with it.

    Args:
        path: a safetensors or torch file.

    Returns:
        The autoencoder, and what is known of its file and of the phantom's latent.

    Raises:
        MissingInputError: the file is not there.
        CheckpointError: it is refused; the message says why.
    """
    tensors = read_weights(path)
    refuse_other_networks(path, tensors)
    autoencoder = load_autoencoder(path)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    thin = phantom(0, shape_zyx=PHANTOM_ZYX, spacing_mm=(5.0, 5.0, 5.0), noise_hu=10.0)
    latent = autoencoder.encode(volume_to_unit(torch.from_numpy(thin.hu))).mean
    parameters = list(autoencoder.parameters())
    return autoencoder, Verified(
        tensors=len(parameters),
        parameters=sum(p.numel() for p in parameters),
        sha256=sha256sum(path),
        dtype=", ".join(dtypes),
        latent_mean=float(latent.mean()),
        latent_std=float(latent.std()),
    )


def show(path: Path, verified: Verified) -> None:
    """Print tensors, checksum and statistics of a checkpoint, and the licence that goes with it."""
    click.echo(f"{verified.tensors}/{verified.tensors} tensors, {verified.parameters:,} parameters, {verified.dtype}")
    click.echo(f"sha256 {verified.sha256}")
    click.echo(f"latent of the phantom: mean {verified.latent_mean:.6f}, standard deviation {verified.latent_std:.6f}")
    if path.name in RELEASES:
        release = RELEASES[path.name]
        click.echo(f"the name is that of {release.repository}, under the {release.licence}")
    elif verified.parameters == PARAMETERS:
        click.echo("v1 or v2? The tensors do not tell, and the licences differ:")
        for name, release in RELEASES.items():
            click.echo(f"  {name} of {release.repository}: {release.licence}")


@dataclass(frozen=True)
class WindowedReconstruction:
    """What an autoencoder keeps of a scan in one window of HU.

    Attributes:
        scan: its name.
        mixed_precision: that the networks ran in.
        window: the range that values are clipped to, HU: -1000..1000 or -160..240.
        psnr_db: over all slices.
        ssim: mean over axial slices, at most 1.
        mae_hu: mean absolute error of clipped values.
        seconds: for encoding and decoding.
        peak_gib: resident memory of the process; on a GPU its tensors.
    """

    scan: str
    mixed_precision: str
    window: str
    psnr_db: float
    ssim: float
    mae_hu: float
    seconds: float
    peak_gib: float


@torch.inference_mode()
def reconstructions(
    autoencoder: MaisiAutoencoder, path: Path, mixed_precision: str, memory_gib: float
) -> Iterator[WindowedReconstruction]:
    """Encode a scan and decode the mean of its latent.

    Args:
        autoencoder: on its device.
        path: of the scan.
        mixed_precision: no, bf16 or fp16.
        memory_gib: working memory in GiB.

    Yields:
        What is kept of the scan, PSNR in dB and MAE in HU: a row a window.

    Raises:
        ScanError: the scan cannot be used.
        ParamsError: the memory does not suffice.
    """
    hu, device = fit(path).volume.hu, next(autoencoder.parameters()).device
    dtype = PRECISIONS[mixed_precision]
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with ResourceMeter() as meter, torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        decoded = autoencoder_ceiling(autoencoder, torch.from_numpy(hu), memory_gib).float().numpy()
    peak_gib = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else meter.peak_mib / 2**10
    for name, window in SCORED_WINDOWS.items():
        mae_hu = float(abs(window.clip(decoded) - window.clip(hu)).mean(dtype=float))
        psnr, ssim = psnr_db(slice_mse(decoded, hu, window).mean(), window), ssim_axial(decoded, hu, window)
        yield WindowedReconstruction(
            path.name.partition(".")[0], mixed_precision, name, psnr, ssim, mae_hu, meter.seconds, peak_gib
        )


def show_reconstructions(rows: list[WindowedReconstruction]) -> None:
    """Print a table that fits a terminal."""
    table = Table()
    for name in ("scan", "networks", "HU", "PSNR dB", "SSIM", "MAE HU", "s", "GiB"):
        table.add_column(name, justify="left" if name in ("scan", "networks") else "right", overflow="fold")
    for row in rows:
        quality = f"{row.psnr_db:.2f}", f"{row.ssim:.4f}", f"{row.mae_hu:.1f}"
        dtype = str(PRECISIONS[row.mixed_precision]).removeprefix("torch.")
        table.add_row(row.scan, dtype, row.window, *quality, f"{row.seconds:.1f}", f"{row.peak_gib:.1f}")
    Console(width=LINE_WIDTH).print(table)


def run(
    path: Path,
    scans: Sequence[Path],
    diffusion: Path | None,
    precisions: Sequence[str],
    memory_gib: float,
    device: str,
    json_path: Path | None,
) -> None:
    """Check a file of weights, and score it on scans; what is done of these is shown and kept, whatever ends the run.

    Args:
        path: of the weights.
        scans: files or folders of scans.
        diffusion: checkpoint of a diffusion model, whose scale factor is shown; None for none.
        precisions: what the networks compute in.
        memory_gib: working memory in GiB.
        device: auto, cpu or cuda.
        json_path: where the rows are written; None for nowhere.

    Raises:
        MissingInputError: a scan does not exist.
        ParamsError: fp16 on a CPU.
        CtinterpError: a file or a scan is missing or refused.
        UsageError: options for scans without any.
    """
    check_files([path, *scans], [json_path] if json_path else [], force=True)
    if (json_path or precisions != ("no",)) and not scans:
        raise click.UsageError("--json and --mixed-precision are for SCANS: give some")
    for missing in (scan for scan in scans if not scan.exists()):
        raise MissingInputError(f"{missing} does not exist: expected a scan file or a folder of DICOM")
    on, factor = pick_device(device), scale_factor(diffusion) if diffusion else None
    if "fp16" in precisions and on.type == "cpu":
        raise ParamsError("fp16 is very slow on a processor: take bf16, or a GPU")
    autoencoder, verified = verify_file(path)
    show(path, verified)
    if diffusion:
        click.echo(f"scale factor of {diffusion.name}: {factor:.6f}")
    autoencoder.to(on)
    rows: list[WindowedReconstruction] = []
    try:
        with progress("encoding and decoding") as report_progress:
            for scan, precision in itertools.product(scans, precisions):
                rows += reconstructions(autoencoder, scan, precision, memory_gib)
                report_progress(len(rows) / (len(SCORED_WINDOWS) * len(scans) * len(precisions)))
                if json_path:
                    write_json(json_path, [asdict(row) for row in rows])
    finally:
        if rows:
            show_reconstructions(rows)
