"""What a user should know of the grids before anything is restored on them."""

from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.scan.volume import Volume

MEASURED = {
    "thin slices a thick one": (1.2, 12.0),
    "mm from thin slice to thin slice": (0.6, 2.0),
    "slice thickness over slice distance": (0.8, 1.5),
    "mm a pixel": (0.45, 1.0),
}
"""What the model and the classical methods were measured on (released/README.md); elsewhere nobody knows."""


def not_exact(operator: ThickeningOperator) -> str | None:
    """One line where thick slices overlap so much that thin ones give them back only nearly; else None."""
    if not operator.is_regularised:
        return None
    return (
        f"slices {operator.thick_thickness_mm:g} mm thick every {operator.thick_spacing_mm:g} mm overlap too much to "
        "be undone exactly: the thin slices give them back only nearly"
    )


def not_measured(operator: ThickeningOperator, thick: Volume) -> str | None:
    """One line where a run is outside of what was measured; else None."""
    distance = operator.thick_spacing_mm
    values = dict(
        zip(
            MEASURED,
            (
                1 / operator.thin_distance,
                operator.thin_distance * distance,
                operator.thick_thickness_mm / distance,
                (thick.spacing_mm[1] + thick.spacing_mm[2]) / 2,
            ),
            strict=True,
        )
    )
    outside = [
        f"{value:.3g} {what} (measured: {MEASURED[what][0]:g} to {MEASURED[what][1]:g})"
        for what, value in values.items()
        if not 0.99 * MEASURED[what][0] <= value <= 1.01 * MEASURED[what][1]
    ]
    return f"how good a result is here was not measured: {', '.join(outside)}" if outside else None
