"""What two series of one object, tilted opposite ways, tell apart: an object that moved, and headers that are wrong.

    python -m benchmarks.gantry STRAIGHT TILTED TILTED

Nothing of ctinterp's restoration is in it: tilted series are taken as their headers place them. Blocks of the straight
scan are found in both. An object that moved after the straight scan lies off by the same in both. Where the gantry
turns about another height than the headers have, the two are off along z opposite ways, by the sine of the angle.
An angle that is not the header's shears a series, and no object shears.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from benchmarks.tilt import Array, found_blocks, scan_of, sheared

# How many parameters each explanation has: shift (3) and turn (3) of the object, height of the pivot, two angles.
FREE = {"as the headers have it": 0, "a motion that both share": 6, "and one pivot": 7, "and two angles": 9}
BLOCK_MM = 0.3  # a block is found so well: what is much further off counts less


def tilt_of(image: sitk.Image) -> float:
    """The angle of a sheared image, radians: above 0 where z grows along its columns."""
    _, y, z = np.reshape(image.GetDirection(), (3, 3))[:, 1].tolist()
    return math.atan2(z, y)


def expected_places(parameters: Array, tilts: Sequence[float], places: Sequence[Array], centre: Array) -> list[Array]:
    """Where blocks are to be found in each tilted series.

    Args:
        parameters: (9,) mm and radians; the pivot lies so much further along y than the headers have it, and an angle
            is so much less than theirs.
        tilts: of each series by its headers, radians.
        places: of each series, (n, 3) LPS, mm.
        centre: (3,) LPS, mm, which turns and angles are about.

    Returns:
        Of each series, (n, 3) LPS, mm.
    """
    expected = []
    for tilt, own, less in zip(tilts, places, parameters[7:], strict=True):
        off = Rotation.from_rotvec(parameters[3:6]).apply(own - centre)
        along_y = -math.tan(tilt) * less * off[:, 1] + (math.cos(tilt) - 1) * parameters[6]
        along_z = less * off[:, 1] + math.sin(tilt) * parameters[6]
        expected.append(off + centre + parameters[:3] + np.column_stack([0 * along_y, along_y, along_z]))
    return expected


def explained(
    free: int, tilts: Sequence[float], places: Sequence[Array], found: Sequence[Array]
) -> tuple[Array, Array]:
    """The explanation that leaves least.

    Args:
        free: how many of the parameters it has; the others are 0.
        tilts: of each series by its headers, radians.
        places: of each series, (n, 3) LPS, mm.
        found: the same blocks in the tilted series.

    Returns:
        (free,) mm and radians, as `expected_places` has them; (blocks, 3) mm that it leaves, of one series after the
        other.
    """
    centre = np.concatenate(places).mean(axis=0)

    def left(parameters: Array) -> Array:
        whole = np.pad(parameters, (0, 9 - free))
        return np.concatenate(found) - np.concatenate(expected_places(whole, tilts, places, centre))

    best = np.zeros(free)
    if free:
        best = least_squares(lambda some: left(some).ravel() / BLOCK_MM, best, loss="soft_l1").x
    return best, left(best)


@click.command
@click.argument("straight", type=click.Path(path_type=Path))
@click.argument("tilted", nargs=2, type=click.Path(path_type=Path))
def main(straight: Path, tilted: tuple[Path, Path]) -> None:
    """Print how far blocks of STRAIGHT lie off in both TILTED series, and how much of it each explanation leaves."""
    fixed, moving = scan_of(straight), [sheared(folder) for folder in tilted]
    tilts = [tilt_of(one.image) for one in moving]
    places, found = zip(*(found_blocks(fixed, one) for one in moving), strict=True)
    one, other = ((b - a).mean(axis=0) for a, b in zip(places, found, strict=True))
    print("tilt, degrees:", np.degrees(tilts).round(2), "blocks:", [len(own) for own in places])
    print("mean of blocks, LPS mm:", one.round(2), other.round(2))
    print("  the same in both:", ((one + other) / 2).round(2), "opposite:", ((other - one) / 2).round(2))
    for words, free in FREE.items():
        best, left = explained(free, tilts, places, found)
        each = np.split(np.linalg.norm(left, axis=1), [len(places[0])])
        told = "; ".join(f"mean {mm.mean():.2f}, 95 % within {np.quantile(mm, 0.95):.2f} mm" for mm in each)
        print(f"{words}: {told}")
        print("  shift", best[:3].round(2), "turn", np.degrees(best[3:6]).round(2), "pivot", best[6:7].round(2),
              "angles", np.degrees(best[7:]).round(2))  # fmt: skip


if __name__ == "__main__":
    main()
