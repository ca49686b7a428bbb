"""Every path of the project, in one place."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Where things are below the project's root (the folder of dvc.yaml).

    Each stage owns one folder under data/ or reports/ that has the stage's name.
    """

    root: Path

    @property
    def params(self) -> Path:
        """The parameters of every stage."""
        return self.root / "params.yaml"

    @property
    def pipeline(self) -> Path:
        """The stages."""
        return self.root / "dvc.yaml"

    @property
    def raw(self) -> Path:
        """Scans as the user dropped them, and `scans.csv` where patients and splits are given."""
        return self.root / "data" / "raw"

    @property
    def maisi(self) -> Path:
        """What `ctinterp autoencoder import` writes: `autoencoder.safetensors` and `card.json`."""
        return self.root / "data" / "maisi"

    @property
    def ingest(self) -> Path:
        """`volumes/<case>.nii`, `thick/<scan>.nii`, `cases.csv`, `pairs.csv`, `sources.csv`, `quarantine.csv`."""
        return self.root / "data" / "ingest"

    @property
    def thicken(self) -> Path:
        """`<task>/<case>.nii`: synthetic thick scans."""
        return self.root / "data" / "thicken"

    @property
    def autoencoder(self) -> Path:
        """`autoencoder.safetensors`."""
        return self.root / "data" / "autoencoder"

    @property
    def encode(self) -> Path:
        """`<case>.safetensors`: latents; `statistics.json`: their scale."""
        return self.root / "data" / "encode"

    @property
    def expect(self) -> Path:
        """`expectation.safetensors`: the regression that the null-space diffusion starts from."""
        return self.root / "data" / "expect"

    @property
    def expectation(self) -> Path:
        """The file of the expectation, which `expect` writes and `train` reads."""
        return self.expect / "expectation.safetensors"

    @property
    def train(self) -> Path:
        """`model.safetensors`: the null-space diffusion, which is the model that is judged and released."""
        return self.root / "data" / "train"

    @property
    def latent(self) -> Path:
        """`model.safetensors`: the latent diffusion."""
        return self.root / "data" / "latent"

    def trained(self, stage: str) -> Path:
        """Everything that the model of `train` or `latent` needs, in one file."""
        return self.root / "data" / stage / "model.safetensors"

    @property
    def generate(self) -> Path:
        """`<stage>/<task>/<case>.nii` and `.std.nii`: what a stage's model estimates, and its standard deviation."""
        return self.root / "data" / "generate"

    @property
    def promote(self) -> Path:
        """The champion's pointer, and what is known of every challenger (see `champion.Registry`)."""
        return self.root / "data" / "promote"

    def report(self, stage: str) -> Path:
        """The folder of what a stage reports."""
        return self.root / "reports" / stage
