"""A page with linked views of a scan before and after, in one file that asks nothing of a network."""

import base64
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctinterp_dagster.errors import GeometryError, IntensityError
from ctinterp_dagster.scan.io import nifti_bytes
from ctinterp_dagster.scan.volume import FloatArray, Volume
from ctinterp_dagster.scan.window import BONE, BRAIN, LUNG, SOFT_TISSUE, second_window

HERE = Path(__file__).parent
MOST_VOXELS = 20_000_000  # of a volume in the page; a browser without a graphics card draws that in seconds
OVERLAY_QUANTILE = 0.995  # of an overlay's values is its brightest colour
NEAR_MM = 0.1  # voxels that are no further apart are in one place
WINDOWS = (SOFT_TISSUE, LUNG, BONE, BRAIN)


def page(thick: Volume, thin: Volume, std: Volume | None, truth: Volume | None, title: str) -> str:
    """HTML with NiiVue and the volumes inside.

    Large volumes are shown with pixels that are means of four, which the page says; values are whole HU.

    Args:
        thick: what was measured.
        thin: what was made of it.
        std: its standard deviation, on the same grid; None where nobody asked for it.
        truth: a real thin scan on the same grid; None where there is none.
        title: of the page.

    Returns:
        The text of the file.

    Raises:
        GeometryError: thin slices are further apart than thick ones, or lie elsewhere; `std` or `truth` lies on
            another grid than `thin`.
        IntensityError: values are not finite.
    """
    check_grids(thick, thin, std, truth)
    shrink = max(shrinking(volume) for volume in (thick, thin))
    against, words = (truth.hu, "truth") if truth else (stretched(thick, thin), "thick scan")
    volumes = {"thick": thick, "thin": thin, **({"truth": truth} if truth else {})}
    overlays = {"std": std} if std else {}
    if against is not None:
        overlays["difference"] = thin.with_hu(np.abs(thin.hu - against))
    content = {
        "volumes": {name: packed(volume, shrink) for name, volume in (volumes | overlays).items()},
        "tops": {name: float(np.quantile(volume.hu, OVERLAY_QUANTILE)) for name, volume in overlays.items()},
        "windows": {w.name.replace("_", " "): [w.low_hu, w.high_hu] for w in WINDOWS},
        "window": second_window(thick.hu).name.replace("_", " "),
        "spacings": {name: round(volume.spacing_mm[0], 3) for name, volume in volumes.items()},
        "against": words,
        "shrink": shrink,
        "title": title,
    }
    html = (HERE / "viewer.html").read_text(encoding="utf-8")
    script = (HERE / "niivue" / "niivue.umd.js").read_text(encoding="utf-8")
    data = json.dumps(content).replace("<", "\\u003c")  # a title must not end the script
    return html.replace("/*niivue*/", script.replace("</script", "<\\/script")).replace("/*content*/", data)


def check_grids(thick: Volume, thin: Volume, std: Volume | None, truth: Volume | None) -> None:
    """Refuse volumes that cannot be looked at together.

    Args:
        thick: what was measured.
        thin: what was made of it.
        std: its standard deviation; None where nobody asked for it.
        truth: a real thin scan; None where there is none.

    Raises:
        GeometryError: thin slices are further apart than thick ones, or lie elsewhere; `std` or `truth` lies on
            another grid than `thin`.
        IntensityError: values are not finite.
    """
    if thin.spacing_mm[0] > thick.spacing_mm[0]:
        raise GeometryError(
            f"the thick scan has slices every {thick.spacing_mm[0]:g} mm, the thin one every {thin.spacing_mm[0]:g} mm"
            ": give the thick one first"
        )
    (low, high), (thin_low, thin_high) = bounds_mm(thick), bounds_mm(thin)
    if (low > thin_high).any() or (thin_low > high).any():
        raise GeometryError(
            f"the thick scan lies from {low.round()} to {high.round()} mm (LPS), the thin one from {thin_low.round()} "
            f"to {thin_high.round()}: give a scan and what was made of it"
        )
    for name, other in (("standard deviation", std), ("truth", truth)):
        if other and (other.hu.shape != thin.hu.shape or np.abs(corners_mm(other) - corners_mm(thin)).max() > NEAR_MM):
            raise GeometryError(
                f"the {name} has {other.hu.shape} voxels from {corners_mm(other).round(1).tolist()} mm, the thin scan "
                f"{thin.hu.shape} from {corners_mm(thin).round(1).tolist()}: give files of one run, or a truth on the "
                "same grid"
            )
    for name, volume in (("thick", thick), ("thin", thin)):
        if not np.isfinite(volume.hu).all():
            raise IntensityError(f"the {name} scan holds NaN or infinity: expected finite HU")


def shrinking(volume: Volume) -> int:
    """By how much the sides of its pixels grow in the page."""
    shrink = 1
    while volume.hu.size / shrink**2 > MOST_VOXELS:
        shrink *= 2
    return shrink


def packed(volume: Volume, shrink: int) -> str:
    """A compressed NIfTI file of whole HU, with pixels that are means over `shrink` x `shrink`, in base64."""
    depth, height, width = (volume.hu.shape[0], *(n // shrink * shrink for n in volume.hu.shape[1:]))
    cells = volume.hu[:, :height, :width].reshape(depth, height // shrink, shrink, width // shrink, shrink)
    z, y, x = volume.spacing_mm
    first = volume.point_mm((0.0, (shrink - 1) / 2, (shrink - 1) / 2))
    origin = (float(first[0]), float(first[1]), float(first[2]))
    hu = np.rint(cells.mean(axis=(2, 4))).clip(-32768, 32767).astype(np.float32)
    return base64.b64encode(nifti_bytes(Volume(hu, (z, y * shrink, x * shrink), origin, volume.direction))).decode()


def corners_mm(volume: Volume) -> npt.NDArray[np.float64]:
    """(4, 3) patient coordinates (LPS) of the first voxel and of the last one along z, y and x."""
    last = np.diag(np.subtract(volume.hu.shape, 1))
    return np.array([volume.point_mm((0.0, 0.0, 0.0)), *(volume.point_mm((z, y, x)) for z, y, x in last.tolist())])


def bounds_mm(volume: Volume) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Least and most patient coordinates (LPS) of its voxels' centres, (3,) each."""
    first, *ends = corners_mm(volume)
    edges = np.subtract(ends, first)
    return first + edges.clip(max=0).sum(axis=0), first + edges.clip(min=0).sum(axis=0)


def stretched(thick: Volume, thin: Volume) -> FloatArray | None:
    """The thick slice nearest to each thin one, (n, y, x) HU; None where their pixels do not lie over each other."""
    normal = thick.direction[:, 2]
    shift, step = np.subtract(thin.origin_mm, thick.origin_mm), thin.direction[:, 2] * thin.spacing_mm[0]
    along, across = shift @ normal, shift - (shift @ normal) * normal
    same = (
        thick.hu.shape[1:] == thin.hu.shape[1:]
        and np.allclose(thick.spacing_mm[1:], thin.spacing_mm[1:], rtol=1e-3)
        and np.allclose(thick.direction[:, :2], thin.direction[:, :2], atol=1e-3)
        and np.abs(across).max() < NEAR_MM
    )
    at = (along + np.arange(thin.depth) * (step @ normal)) / thick.spacing_mm[0]
    return np.asarray(thick.hu[np.rint(at).clip(0, thick.depth - 1).astype(int)]) if same else None
