"""The typed form of params.yaml: a frozen model a stage, unknown keys refused, no defaults here.

The meaning, unit and source of each value stand beside it in params.yaml.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ctinterp_dagster.errors import MissingInputError, ParamsError

ModelT = TypeVar("ModelT", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Distance = Annotated[float, Field(ge=0.1, le=20)]  # of voxels, mm; what `scan.checks` takes for a scanner's slices
Count = Annotated[int, Field(ge=1)]
Triple = Annotated[tuple[Count, Count, Count], Field()]
ProfileName = Literal["box", "gaussian", "triangle"]


def _is_rival(name: str) -> str:
    from ctinterp_dagster.methods import Role, names  # noqa: PLC0415 (what changes no result imports nothing that does)

    if name not in names(Role.RIVAL):
        raise ValueError(f"expected one of {', '.join(names(Role.RIVAL))}")
    return name


Baseline = Annotated[str, AfterValidator(_is_rival)]
# YAML reads a bare no, which DVC writes, as false.
TrainingPrecision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]


class Section(BaseModel):
    """One section of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    device: Literal["auto", "cpu", "cuda"]
    repeatable: bool


class Phantom(Section):
    """The built-in cohort."""

    patients: Annotated[int, Field(ge=0)]
    shape_zyx: Triple
    spacing_mm: tuple[Distance, Distance, Distance]


class Split(Section):
    """How patients are split where no file says it."""

    val_fraction: Fraction
    test_fraction: Fraction


class Ingest(Section):
    """Scans in."""

    phantom: Phantom
    split: Split
    min_slices: Count
    max_spacing_mm: Distance
    strict: bool


def task_name(profile: str, factor: float) -> str:
    """The name of a task wherever one is named, folders included: `box-x5`, `gaussian-x2.5`."""
    return f"{profile}-x{factor:g}"


class ThickTask(Section):
    """One kind of thick scan: `factor` thin slices a thick one, which need not be whole."""

    factor: Annotated[float, Field(gt=1)]
    profile: ProfileName

    @property
    def name(self) -> str:
        """What folders, tables and the gate call it."""
        return task_name(self.profile, self.factor)


def named_once(tasks: tuple[ThickTask, ...]) -> tuple[ThickTask, ...]:
    """Refuse two tasks of one name, which is a folder's.

    Args:
        tasks: in the order of params.yaml.

    Returns:
        The tasks, as they came.

    Raises:
        ValueError: a name is there twice.
    """
    names = [task.name for task in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"give each task once: {', '.join(twice)} is there several times")
    return tasks


class Thicken(Section):
    """Thin to thick."""

    tasks: Annotated[tuple[ThickTask, ...], Field(min_length=1), AfterValidator(named_once)]


class Loop(Section):
    """What the trainings have in common."""

    launcher: str
    accumulation: Count
    clip_norm: Positive
    mixed_precision: TrainingPrecision
    gradient_checkpointing: bool
    checkpoint_every: Count


class Optimisation(Section):
    """What every training has of its own."""

    steps: Count
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    ema_decay: Fraction


class Autoencoder(Optimisation):
    """The latent space: a checkpoint, or a training from scratch."""

    checkpoint: str
    finetune: bool
    channels: Triple
    patch_zyx: Triple
    batch_size: Count


class Encode(Section):
    """Volumes to latents."""

    conditioning: Literal["encoded_interpolation", "interpolated_latent", "interpolated_voxels"]


class Augmentation(Section):
    """How training slabs vary."""

    factors: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]
    profiles: Annotated[tuple[str, ...], Field(min_length=1)]
    widths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    anisotropy: Annotated[float, Field(ge=0)]
    one_in: Annotated[int, Field(ge=0)]
    sharpness: tuple[float, float]
    magnification: Annotated[float, Field(ge=1)]
    zoom: Annotated[float, Field(ge=1)]
    noise_hu: Annotated[float, Field(ge=0)]


class Loss(Section):
    """Weights of the regression's loss."""

    wide: Annotated[float, Field(ge=0)]
    soft_tissue: Annotated[float, Field(ge=0)]
    absolute: Annotated[float, Field(ge=0)]
    spread: Annotated[float, Field(ge=0)]


class Expect(Optimisation):
    """Regression in the null space."""

    start: str
    start_share: Fraction
    channels: Triple
    blocks: Count
    slab_zyx: Triple
    batch_size: Count
    augmentation: Augmentation
    loss: Loss
    weights: dict[str, Positive]


class OneStep(Section):
    """What the network that draws a sample in one evaluation has of its own; no steps for none."""

    steps: Annotated[int, Field(ge=0)]
    learning_rate: Positive


class Train(Optimisation):
    """Diffusion in the null space."""

    start: str
    channels: Triple
    prediction: Literal["v", "x0"]
    steps: Annotated[int, Field(ge=0)]
    one_step: OneStep

    @model_validator(mode="after")
    def can_be_trained(self) -> Self:
        """Refuse before the training what would fail after it.

        Returns:
            The section, as it is.

        Raises:
            ValueError: a denoiser without steps and start, or one that is to be distilled and does not predict x0.
        """
        if not self.steps and not self.start:
            raise ValueError("steps is 0, which keeps the denoiser of start, and start is empty: give one of them")
        if self.one_step.steps and self.prediction != "x0":
            raise ValueError("one_step learns from a denoiser of x0: make prediction x0, or one_step.steps 0")
        return self


class Latent(Optimisation):
    """Diffusion in the latent space of the autoencoder."""

    channels: Triple
    blocks: Count
    prediction: Literal["v", "x0", "epsilon"]
    target: Literal["residual", "latent"]
    patch_zyx: Triple
    batch_size: Count


class Generate(Section):
    """Sampling."""

    sampler: Literal["adams", "ddim", "ddpm"]
    steps: Count | None
    samples: Count
    memory_gib: Positive


class Evaluate(Section):
    """Scoring."""

    baselines: Annotated[tuple[Baseline, ...], Field(min_length=1)]


class Report(Section):
    """The page."""

    views: Count


class Promote(Section):
    """The gate."""

    max_residual_hu: Positive
    champion_margin_db: Annotated[float, Field(ge=0)]
    baseline_margin_db: float
    coverage_90: tuple[Share, Share]
    required: tuple[Literal["baseline", "calibration"], ...]


class Params(Section):
    """All of params.yaml."""

    base: Base
    ingest: Ingest
    thicken: Thicken
    loop: Loop
    autoencoder: Autoencoder
    encode: Encode
    expect: Expect
    train: Train
    latent: Latent
    generate: Generate
    evaluate: Evaluate
    report: Report
    promote: Promote

    @model_validator(mode="before")
    @classmethod
    def of_this_version(cls, values: Any) -> Any:
        """Refuse a file from before the trainings had a section in common.

        Args:
            values: of params.yaml, before they are checked.

        Returns:
            The values, as they came.

        Raises:
            ValueError: there is no section `loop`.
        """
        if isinstance(values, dict) and "loop" not in values:
            raise ValueError(
                f"what the trainings share stands once, below loop: move {', '.join(Loop.model_fields)} there from "
                "autoencoder, expect, train and latent, or begin with the params.yaml of this version"
            )
        return values

    @model_validator(mode="after")
    def is_repeatable(self) -> Self:
        """Refuse to promise the same bytes where they depend on the processor.

        Returns:
            The parameters, as they are.

        Raises:
            ValueError: `base.repeatable` off the CPU or in mixed precision.
        """
        if self.base.repeatable and (self.base.device, self.loop.mixed_precision) != ("cpu", "no"):
            raise ValueError("base.repeatable needs base.device cpu and loop.mixed_precision no, or make it false")
        return self


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Args:
        path: of the file.

    Returns:
        The parameters of all stages.

    Raises:
        MissingInputError: the file is not there.
        ParamsError: it is not YAML, or a value is missing, unknown or impossible.
    """
    return load_section(Params, path)


def load_section(kind: type[ModelT], path: Path) -> ModelT:
    """Read and check a YAML file of the project's root.

    Args:
        kind: pydantic model of the whole file.
        path: of the file.

    Returns:
        The file as the model has it, every value in its range.

    Raises:
        MissingInputError: the file is not there.
        ParamsError: it is no text, not YAML, or a value is missing, unknown or impossible.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing: run from the project's root, the folder of dvc.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        raw: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path.name} is no text in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        got = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
        place = f"{path.name}: {where}" if where else path.name
        raise ParamsError(f"{place}: {first['msg']}{got} (line {_line(text, first['loc'])})") from error


def _line(text: str, where: tuple[int | str, ...]) -> int:
    """The line of YAML on which a value stands, or what is to hold it."""
    node, line = yaml.compose(text), 0
    for part in where:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line
    return line + 1
