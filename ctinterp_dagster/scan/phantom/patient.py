"""One procedural patient: torso, lungs, organs, bones, drawn in anatomical order."""

import hashlib
from dataclasses import dataclass

import numpy as np

from ctinterp_dagster.scan.phantom.bones import paint_plates, paint_ribs, paint_spine
from ctinterp_dagster.scan.phantom.canvas import Box, Canvas, Field, Frame, Point, add_noise, ellipse, ellipsoid
from ctinterp_dagster.scan.phantom.vessels import grow, paint_airways, paint_vessels
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.scan.window import STORED

# Where the segments of a lung lie, seen from its hilum: outward, back, up.
LOBES = (
    (0.5, -0.2, 1.0), (0.9, 0.3, 0.6), (0.8, -0.9, 0.2), (1.0, -0.2, -0.1), (0.9, 0.9, 0.1), (0.8, -0.6, -0.5),
    (0.8, 0.4, -0.5), (0.5, 0.8, -0.8), (0.5, -0.1, -1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Build:
    """What makes one patient differ from another. Lengths in mm; the carina is the origin.

    Attributes:
        chest_mm: half width and half depth of the rib cage, at its widest.
        fat_mm: thickness of the fat under the skin.
        muscle_mm: thickness of the chest wall inside of the fat.
        heart_hu: blood in the heart and the vessels, 40 without contrast medium.
        lung_hu: the parenchyma between the vessels.
        lean: how far structures move left and back per mm toward the head.
        dome_mm: height of the right and left dome of the diaphragm.
    """

    chest_mm: tuple[float, float]
    fat_mm: float
    muscle_mm: float
    heart_hu: float
    lung_hu: float
    lean: tuple[float, float]
    dome_mm: tuple[float, float]

    @classmethod
    def of(cls, rng: np.random.Generator) -> "Build":
        """Draw a patient."""
        return cls(
            chest_mm=(rng.uniform(122, 145), rng.uniform(82, 100)),
            fat_mm=rng.uniform(8, 26),
            muscle_mm=rng.uniform(15, 20),
            heart_hu=float(rng.choice([42.0, rng.uniform(110, 200)])),
            lung_hu=rng.uniform(-880, -835),
            lean=(rng.uniform(-0.04, 0.04), rng.uniform(0.02, 0.12)),
            dome_mm=(rng.uniform(-88, -70), rng.uniform(-102, -86)),
        )


def _cage(build: Build, x: Field, y: Field, z: Field) -> Field:
    """The inside of the ribs narrows toward the neck."""
    narrow = 1 - 0.55 * np.clip((z + 20) / 150, 0, 1) ** 2
    spread = 1 / narrow
    return ellipse(x * spread, y * np.sqrt(spread), build.chest_mm, power=2.3) * narrow


def _spine_mm(build: Build) -> float:
    """How far the vertebral bodies stand behind the middle of the chest."""
    return 0.76 * build.chest_mm[1]


def _lungs(build: Build, x: Field, y: Field, z: Field, cage_mm: Field) -> Field:
    """Signed distance from the lungs: inside of the cage, beside the mediastinum and the heart, above the diaphragm."""
    depth = build.chest_mm[1]
    right_dome = build.dome_mm[0] - ((x + 68) / 11) ** 2 / 2.2 - ((y - 5) / 11) ** 2 / 1.6
    left_dome = build.dome_mm[1] - ((x - 72) / 11) ** 2 / 2.2 - ((y - 5) / 11) ** 2 / 1.6
    diaphragm = np.where(x < 0, right_dome, left_dome) - z
    bulge = 0.75 + 0.3 * np.exp(-(((z - 22) / 30) ** 2)) + 0.2 * np.exp(-(((z + 40) / 45) ** 2))
    mediastinum = ellipse((x - 0.05 * z) / bulge, (y - 0.1 * depth) * np.float32(0.45), (33.0, 0.5 * depth))
    spine = ellipse(x, y - _spine_mm(build), (24.0, 24.0))
    inside = np.maximum(cage_mm + 3, np.maximum(-mediastinum, np.maximum(-spine, diaphragm)))
    return np.maximum(inside, -(_heart(build, x, y, z) - 4))


def _heart(build: Build, x: Field, y: Field, z: Field) -> Field:
    """The heart lies left of the middle, its axis down, left and forward."""
    dx, dy, dz = x - 20, y + 0.28 * build.chest_mm[1], z + 62
    long = 0.66 * dx - 0.42 * dy - 0.62 * dz
    wide = 0.72 * dx + 0.62 * dy + 0.31 * dz
    high = 0.25 * dx - 0.66 * dy + 0.71 * dz
    return ellipsoid((long, wide, high), (68.0, 47.0, 49.0))


def _frame(build: Build, box: Box, canvas: Canvas) -> Frame:
    x, y = box.x - np.float32(build.lean[0]) * box.z, box.y + np.float32(build.lean[1]) * box.z
    z = box.z + np.zeros_like(x) + np.zeros_like(y)
    x, y = x + np.zeros_like(z), y + np.zeros_like(z)
    cage = _cage(build, x, y, z)
    return Frame(x, y, z, cage, canvas.coverage(_lungs(build, x, y, z, cage)))


def _paint_torso(canvas: Canvas, build: Build, at: Frame, rng: np.random.Generator) -> None:
    belly = build.fat_mm * (1 + 0.25 * np.sin(at.z / 60) + 0.15 * canvas.texture(rng, 90.0))
    shoulders = 26 * np.clip((at.z - 20) / 90, 0, 1) * np.clip((np.abs(at.x) - 40) / 60, 0, 1)
    back = 18 * np.exp(-((at.x / 50) ** 2)) * np.clip(at.y / 60, 0, 1)
    muscle = build.muscle_mm + shoulders + back
    skin = at.cage_mm - muscle - belly
    fat = canvas.texture(rng, 14.0)
    canvas.paint(canvas.coverage(skin), 30.0)
    canvas.paint(canvas.coverage(skin + 2), -104 + 7 * fat)
    wall = at.cage_mm - muscle + 4 * canvas.texture(rng, 40.0)
    streaks = canvas.coverage(np.float32(8) * (np.float32(1.25) - np.abs(canvas.texture(rng, 17.0))))
    canvas.paint(canvas.coverage(wall), 55 + 6 * fat)
    canvas.paint(canvas.coverage(wall) * streaks * 0.7, -90.0)
    canvas.paint(canvas.coverage(at.cage_mm), -95 + 9 * fat)


def _paint_abdomen(canvas: Canvas, build: Build, at: Frame, rng: np.random.Generator) -> None:
    """Liver, spleen and stomach fill what lies inside of the cage below the lungs."""
    grain = 5 * canvas.texture(rng, 6.0)
    tilt = 0.35 * at.x - 0.2 * at.y
    liver = np.maximum(at.cage_mm + 6, at.x - 18 + 0.4 * (at.z + 120) + 0.2 * at.y)
    liver = np.maximum(
        liver, at.z - build.dome_mm[0] + 6 + ((at.x + 68) / 11) ** 2 / 2.2 + ((at.y - 5) / 11) ** 2 / 1.6
    )
    spleen = ellipsoid((at.x - 88, at.y - 42, at.z - build.dome_mm[1] + 46 + tilt * 0.2), (28.0, 40.0, 42.0))
    stomach = ellipsoid((at.x - 55, at.y + 22, at.z - build.dome_mm[1] + 42), (38.0, 32.0, 36.0))
    enhanced = 0.35 * (build.heart_hu - 42)
    canvas.paint(canvas.coverage(np.maximum(liver, 4 - at.x * 0.2 - 40)), 58 + enhanced + grain)
    portal = canvas.coverage(liver + 3)
    for _ in range(14):
        start = np.array([rng.uniform(-90, -10), rng.uniform(-40, 50), build.dome_mm[0] - rng.uniform(15, 60)])
        step = rng.normal(size=3) * (22, 22, 12)
        canvas.capsule((start, start + step), rng.uniform(1.5, 4), 38 + 1.6 * enhanced, portal)
    canvas.paint(canvas.coverage(np.maximum(spleen, at.cage_mm + 6)), 50 + 1.3 * enhanced + grain)
    wall = np.maximum(stomach, at.cage_mm + 6)
    canvas.paint(canvas.coverage(wall), 45.0)
    canvas.paint(canvas.coverage(wall + 4), np.where(at.y < -2, -980.0, 12.0))


def _paint_heart(canvas: Canvas, build: Build, at: Frame, rng: np.random.Generator) -> None:
    muscle = 60 + 0.35 * (build.heart_hu - 42)
    outer = _heart(build, at.x, at.y, at.z)
    fat_mm = np.maximum(4 + 3.5 * canvas.texture(rng, 30.0), 0)
    canvas.paint(canvas.coverage(outer), 20.0)
    canvas.paint(canvas.coverage(outer + 1), -80.0)
    canvas.paint(canvas.coverage(outer + fat_mm), muscle)
    y0 = -0.28 * build.chest_mm[1]
    for centre, radii, hu in (
        ((38.0, y0 - 2, -75.0), (25.0, 17.0, 25.0), build.heart_hu),
        ((12.0, y0 - 20, -70.0), (23.0, 15.0, 27.0), build.heart_hu * 1.05),
        ((-8.0, y0 + 4, -52.0), (18.0, 21.0, 26.0), build.heart_hu),
        ((12.0, y0 + 27, -45.0), (27.0, 14.0, 19.0), build.heart_hu * 0.97),
    ):
        shape = ellipsoid((at.x - centre[0], at.y - centre[1] - 0.3 * (at.x - centre[0]), at.z - centre[2]), radii)
        canvas.paint(canvas.coverage(np.maximum(shape, outer + 8 + fat_mm)), hu)


def _paint_great_vessels(canvas: Canvas, build: Build, back_mm: float) -> None:
    blood = build.heart_hu
    arch = [(8, -34, -40), (-14, -30, -8), (-16, -24, 16), (-6, -8, 34), (10, 16, 36), (22, back_mm - 24, 22)]
    descending = [(24, back_mm - 20, 0), (23, back_mm - 18, -60), (16, back_mm - 20, -120), (6, back_mm - 24, -220)]
    arms = [[(-8, -10, 36), (-22, -14, 70), (-26, -6, 130)], [(4, 2, 38), (12, 2, 80), (18, 4, 130)]]
    cava = [(-26, -16, 130), (-27, -16, 40), (-24, -14, -30)]
    trunk = [(16, -38, -34), (16, -24, -12), (12, -4, -6)]
    branches = [[(12, -4, -6), (-14, 0, -10), (-42, 8, -18)], [(12, -4, -6), (28, 8, -2), (42, 22, -8)]]
    inferior = [(-22, 4, -70), (-24, 8, -110), (-20, 14, -220)]
    for path, radius in (
        ([*arch, *descending], 14.0), (arms[0], 6.0), (arms[1], 5.0), (cava, 9.0), (trunk, 13.0),
        (branches[0], 9.5), (branches[1], 9.5), (inferior, 12.0),
    ):  # fmt: skip
        points = [np.array(p, dtype=np.float64) for p in path]
        canvas.tube(points, radius + 1.2, 45.0)
        canvas.tube(points, radius, blood)
    gullet = [
        np.array(p, dtype=np.float64) for p in ((4, 26, 130), (6, 28, 20), (10, back_mm - 38, -60), (20, 22, -130))
    ]
    canvas.tube(gullet, 7.0, 42.0)
    canvas.tube(gullet, 1.8, -700.0)
    for node in ((-14, 2, 12), (-20, 6, 2), (18, -12, 14), (2, 14, -14), (-6, -22, 48)):
        start = np.array(node, dtype=np.float64)
        canvas.capsule((start, start + np.array([2.0, 1.0, 5.0])), 3.2, 38.0)


def _paint_lungs(canvas: Canvas, build: Build, at: Frame, rng: np.random.Generator) -> None:
    slope = 0.35 * (at.y + 20)
    haze = 14 * canvas.texture(rng, 25.0) + 12 * canvas.texture(rng, 7.0) + 10 * canvas.texture(rng, 4.0)
    canvas.paint(at.lungs, build.lung_hu + slope + haze)
    fissure = np.abs(at.z + 35 + 0.9 * (at.y - 10) + 0.08 * at.x + 4 * canvas.texture(rng, 60.0)) * np.float32(0.74)
    canvas.paint(at.lungs * canvas.coverage(fissure - 0.4) * 0.35, -500.0)
    for side in (-1.0, 1.0):
        hilum = np.array([38.0 * side, 12.0, -14.0])
        own = at.lungs * (at.x * np.float32(side) > 0)
        for lobe in LOBES:
            heading = np.array(lobe) * (side, 1, 1) + rng.normal(size=3) * 0.15
            paint_vessels(canvas, grow(rng, hilum, heading, rng.uniform(4.2, 5.2)), build.heart_hu, own)
            offset = np.array([-2.0 * side, 6.0, -6.0])
            paint_vessels(canvas, grow(rng, hilum + offset, heading, rng.uniform(3.6, 4.4)), build.heart_hu, own)
            paint_airways(canvas, grow(rng, hilum - offset * 0.8, heading, rng.uniform(3.0, 3.6)), own)


def _paint_central_airways(canvas: Canvas) -> None:
    trachea = [np.array(p, dtype=np.float64) for p in ((-2, 2, 140), (-2, 6, 60), (0, 10, 4))]
    right = [trachea[-1], np.array([-18.0, 11.0, -10.0]), np.array([-40.0, 13.0, -16.0])]
    left = [trachea[-1], np.array([20.0, 14.0, -16.0]), np.array([42.0, 16.0, -20.0])]
    for wall, hu in ((1.6, 35.0), (0.0, -995.0)):
        canvas.tube(trachea, 9.0 + wall, hu)
        canvas.tube(right, 6.6 + wall, hu)
        canvas.tube(left, 5.6 + wall, hu)


def _centre(build: Build, shape_zyx: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Point:
    """Where the field lies: on the body's axis; a field of less than 100 mm over the right lung's hilum."""
    width = shape_zyx[2] * spacing_mm[2]
    aside = float(np.clip(1 - width / (2 * build.chest_mm[0]), 0, 0.3)) * -build.chest_mm[0]
    return np.array([aside, 4.0, -42.0])


def phantom(
    patient: int | str,
    shape_zyx: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    noise_hu: float,
) -> Volume:
    """Draw the chest CT of a patient who does not exist.

    The anatomy is in millimetres and depends on the patient alone; soft texture and noise depend on the field too. A
    field of 400 mm shows the body whole, a smaller one a part of it, around the heart and the right hilum. The
    field's middle lies 42 mm below the carina. Borders are oblique to z and as wide as a voxel. The same arguments give
    the same bytes.

    Args:
        patient: the seed.
        shape_zyx: number of slices, rows, columns.
        spacing_mm: distance of voxel centres along (z, y, x).
        noise_hu: standard deviation of the noise.

    Returns:
        Whole HU in [-1024, 3071], axial, head up, on the patient axes.
    """
    seed = int.from_bytes(hashlib.sha256(str(patient).encode()).digest()[:8], "big")
    rng, noise_rng = (np.random.default_rng([seed, k]) for k in range(2))
    build = Build.of(rng)
    centre = _centre(build, shape_zyx, spacing_mm)
    canvas = Canvas(shape_zyx, spacing_mm, centre)
    at = _frame(build, canvas.box, canvas)
    _paint_torso(canvas, build, at, rng)
    _paint_abdomen(canvas, build, at, rng)
    _paint_heart(canvas, build, at, rng)
    _paint_great_vessels(canvas, build, _spine_mm(build) + 4)
    _paint_lungs(canvas, build, at, rng)
    _paint_central_airways(canvas)
    paint_ribs(canvas, at)
    paint_plates(canvas, at, build.chest_mm[1])
    paint_spine(canvas, at, _spine_mm(build))
    hu = STORED.clip(np.rint(add_noise(canvas.hu, noise_rng, noise_hu)))
    origin = tuple(float(axis[0]) for axis in canvas.axes_mm[::-1])
    return Volume(hu, spacing_mm, (origin[0], origin[1], origin[2]), np.eye(3))
