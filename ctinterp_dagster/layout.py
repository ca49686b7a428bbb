"""Every path of the project, in one place."""

from pathlib import Path


class Layout:
    """Where things are below the project's root (the folder of dvc.yaml).

    Each stage owns one folder under data/ or reports/ that has the stage's name.

    Attributes:
        root: the project's root.
        params: the parameters of every stage.
        pipeline: the stages.
        raw: scans as the user dropped them, and `scans.csv` where patients and splits are given.
        maisi: what `ctinterp autoencoder import` writes: `autoencoder.safetensors` and `card.json`.
        ingest: `volumes/<case>.nii`, `thick/<scan>.nii`, `cases.csv`, `pairs.csv`, `sources.csv`, `quarantine.csv`.
        thicken: `<task>/<case>.nii`: synthetic thick scans.
        autoencoder: `autoencoder.safetensors`.
        encode: `<case>.safetensors`: latents; `statistics.json`: their scale.
        expect: `expectation.safetensors`: the regression that the null-space diffusion starts from.
        expectation: that file, which `expect` writes and `train` reads.
        train: `model.safetensors`: the null-space diffusion, which is the model that is judged and released.
        latent: `model.safetensors`: the latent diffusion.
        generate: `<stage>/<task>/<case>.nii` and `.std.nii`: what a stage's model estimates, and its standard
            deviation.
        promote: the champion's pointer, and what is known of every challenger (see `champion.Registry`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.params, self.pipeline = root / "params.yaml", root / "dvc.yaml"
        data = root / "data"
        self.raw, self.maisi = data / "raw", data / "maisi"
        self.ingest, self.thicken = data / "ingest", data / "thicken"
        self.autoencoder, self.encode = data / "autoencoder", data / "encode"
        self.expect = data / "expect"
        self.expectation = self.expect / "expectation.safetensors"
        self.train, self.latent = data / "train", data / "latent"
        self.generate, self.promote = data / "generate", data / "promote"

    def trained(self, stage: str) -> Path:
        """Everything that the model of `train` or `latent` needs, in one file."""
        return self.root / "data" / stage / "model.safetensors"

    def report(self, stage: str) -> Path:
        """The folder of what a stage reports."""
        return self.root / "reports" / stage
