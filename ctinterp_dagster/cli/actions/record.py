"""What was made of a scan: a line for the terminal, and the JSON beside the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctinterp_dagster.physics.measurement import Measurement
from ctinterp_dagster.scan.io import Scan


@dataclass(frozen=True)
class StretchRecord:
    """What was measured of evenly spaced slices; an even scan is one stretch.

    Attributes:
        profile: what `SliceProfile.record` says of the slice profile.
        spacing_mm: distance of the slices.
        tagged_mm: SliceThickness, of each slice where it differs; None where no tag tells.
        used_mm: full width at half maximum that the slices were restored with.
        oversampling: pixels along a row that the networks see as one, 1 or 2.
    """

    profile: Mapping[str, object]
    spacing_mm: float
    tagged_mm: float | tuple[float, ...] | None
    used_mm: float
    oversampling: int

    @classmethod
    def of(cls, part: Measurement, scan: Scan) -> "StretchRecord":
        """That of one stretch.

        Args:
            part: what was measured of it.
            scan: whose tags tell a thickness.

        Returns:
            Profile, distance, tagged and used thickness, and oversampling of the stretch.
        """
        assert part.slice_profile is not None
        tagged_mm = scan.each_thickness_mm or scan.thickness_mm
        profile, spacing_mm = part.slice_profile.record, part.thick.spacing_mm[0]
        return cls(profile, spacing_mm, tagged_mm, part.thickness_mm, part.oversampling)


@dataclass(frozen=True)
class Record:
    """What was made of a scan, and how.

    Attributes:
        version: of ctinterp.
        input: name of the scan.
        outputs: where each output lies, by its option; None where it was not asked for.
        model: file and SHA-256 of the model; empty for a classical method.
        stretches: in their order along z.
        input_slices: of all stretches.
        output_slices: of the result.
        output_spacing_mm: their distance.
        output_thickness_mm: full width at half maximum of their profile.
        residual_hu: mean |A x - y|, how well the thin slices explain the thick ones.
        added_noise_hu: standard deviation of the noise that samples were given in addition.
        method: that restored.
        settings: of the model, as far as they were used; empty for a classical method.
        device: that computed.
        threads: of torch.
        warnings: a sentence each.
        date: when it was made, ISO 8601 in UTC.
        seconds: that it took.
    """

    version: str
    input: str
    outputs: Mapping[str, str | list[str] | None]
    model: Mapping[str, str]
    stretches: tuple[StretchRecord, ...]
    input_slices: int
    output_slices: int
    output_spacing_mm: float
    output_thickness_mm: float
    residual_hu: float
    added_noise_hu: float
    method: str
    settings: Mapping[str, Any]
    device: str
    threads: int
    warnings: tuple[str, ...]
    date: str
    seconds: float

    @property
    def summary(self) -> str:
        """One line of what was done."""
        spacing_mm = " and ".join(f"{stretch.spacing_mm:g}" for stretch in self.stretches)
        return (
            f"{self.input_slices} slices of {spacing_mm} mm -> {self.output_slices} of {self.output_spacing_mm:g} mm, "
            f"|Ax - y| {self.residual_hu:.3f} HU, {self.seconds:.0f} s"
        )

    def as_json(self) -> dict[str, Any]:
        """What `--json` writes; what was measured of an uneven scan is a list, of its stretches."""
        even = len(self.stretches) == 1

        def each(name: str) -> Any:
            values = [getattr(stretch, name) for stretch in self.stretches]
            return values[0] if even else values

        return {
            "version": self.version,
            "input": self.input,
            **self.outputs,
            **self.model,
            **(each("profile") if even else {"stretches": each("profile")}),
            "input_slices": self.input_slices,
            "input_spacing_mm": each("spacing_mm"),
            "input_thickness_tagged_mm": each("tagged_mm"),
            "input_thickness_used_mm": each("used_mm"),
            "oversampling": each("oversampling"),
            "output_slices": self.output_slices,
            "output_spacing_mm": self.output_spacing_mm,
            "output_thickness_mm": self.output_thickness_mm,
            "residual_hu": self.residual_hu,
            "added_noise_hu": self.added_noise_hu,
            "method": self.method,
            **self.settings,
            "device": self.device,
            "threads": self.threads,
            "warnings": list(self.warnings),
            "date": self.date,
            "seconds": self.seconds,
        }
