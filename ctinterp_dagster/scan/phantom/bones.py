"""Bones: a dense shell around a spongy inside, in shapes that change from slice to slice."""

import numpy as np

from ctinterp_dagster.scan.phantom.canvas import Canvas, Field, Frame, ellipse, ellipsoid

VERTEBRA_MM = 24.0
DISC_MM = 5.0
RIB_PITCH_MM = 24.0


def _bone(canvas: Canvas, distance_mm: Field, *, shell_hu: float, inside_hu: float, shell_mm: float) -> None:
    canvas.paint(canvas.coverage(distance_mm), shell_hu)
    canvas.paint(canvas.coverage(distance_mm + shell_mm), inside_hu)


def paint_ribs(canvas: Canvas, at: Frame) -> None:
    """Paint all ribs at once: bands around the cage that descend from the spine to the front, cartilage at the end."""
    # 0 at the spine, pi at the sternum.
    angle = np.arctan2(np.abs(at.x), at.y)
    drop = 78 * (1 - np.cos(np.clip(angle, 0, 2.5) * 0.95)) / 1.7
    turn = (at.z + drop) / RIB_PITCH_MM
    off = (turn - np.rint(turn)) * np.float32(RIB_PITCH_MM * 0.87)
    rib = ellipse(off, at.cage_mm - 6, (4.9, 3.6))
    bony = np.maximum(rib, (angle - 2.25) * 60)
    cartilage = np.maximum(rib, np.maximum((2.2 - angle) * 60, (angle - 2.95) * 60))
    canvas.paint(canvas.coverage(cartilage), 95.0)
    _bone(canvas, bony, shell_hu=850.0, inside_hu=260.0, shell_mm=1.5)


def paint_spine(canvas: Canvas, at: Frame, spine_mm: float) -> None:
    """Paint vertebral bodies, discs, the canal, arches and processes; end plates are oblique to the slices.

    Args:
        canvas: where.
        at: its coordinates.
        spine_mm: from the middle of the chest back to that of the vertebral bodies.
    """
    x, y = at.x, at.y - spine_mm
    tilted = at.z + 0.16 * y + 0.05 * x
    level = tilted / VERTEBRA_MM
    off = (level - np.rint(level)) * np.float32(VERTEBRA_MM)
    waist = 1.6 * np.cos(off * np.float32(2 * np.pi / VERTEBRA_MM))
    column = ellipse(x, y, (17.5, 14.5), power=2.4) + waist
    body = np.maximum(column, np.abs(off) - (VERTEBRA_MM - DISC_MM) / 2)
    canvas.paint(canvas.coverage(column + 1), 92.0)
    _bone(canvas, body, shell_hu=620.0, inside_hu=190.0, shell_mm=1.3)
    arch_level = np.abs(off + 2) - 9
    canal = ellipse(x, y - 22.5, (9.5, 8.0))
    arch = np.maximum(np.abs(canal - 3.2) - 3.2, arch_level)
    spinous = np.maximum(ellipse(x, y - 41, (3.2, 11.0)), np.abs(off + 9 + 0.36 * (y - 41)) - 5)
    transverse = ellipsoid((np.abs(x) - 25, y - 20 - 0.3 * (np.abs(x) - 25), off + 1), (14.0, 5.0, 5.5))
    for part in (spinous, transverse, arch):
        _bone(canvas, part, shell_hu=720.0, inside_hu=330.0, shell_mm=1.6)
    canvas.paint(canvas.coverage(canal), 18.0)
    canvas.paint(canvas.coverage(ellipse(x, y - 22.5, (5.5, 4.2))), 38.0)


def paint_plates(canvas: Canvas, at: Frame, front_mm: float) -> None:
    """Paint the flat bones: the shoulder blades behind the upper ribs, and the breastbone, which leans forward.

    Args:
        canvas: where.
        at: its coordinates.
        front_mm: from the middle of the chest to the front of the cage.
    """
    out, back, up = np.abs(at.x) - 88, at.y - 62, at.z - 48
    scapulae = ellipsoid(
        (0.8 * out - 0.6 * back, 0.6 * out + 0.8 * back + 0.05 * up, up + 0.2 * out), (34.0, 4.0, 60.0)
    )
    width = 17 + 7 * np.clip(at.z / 40, 0, 1)
    front = ellipse(at.x * (17 / width), at.y + front_mm + 6, (17.0, 5.5), power=3.0)
    sternum = np.maximum(front, np.maximum(at.z - 62, -100 - at.z))
    for plate, shell_hu, inside_hu in ((scapulae, 650.0, 240.0), (sternum, 480.0, 150.0)):
        _bone(canvas, plate, shell_hu=shell_hu, inside_hu=inside_hu, shell_mm=1.4)
