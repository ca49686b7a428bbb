"""The training and validation volumes in a folder of at most 50 MiB, for training on a machine that has little.

    python -m benchmarks.kit FOLDER --mib 50 --data ROOT

ROOT is a project in which the stage `ingest` has run; the weights of the cases are those of `expect.weights` in its
params.yaml. Never takes a test patient. Volumes are packed without loss, but validation keeps the middle of each volume
only, and training loses slices at the ends where all would not fit: kit.json has both sizes. Read it with
`benchmarks.packed_volumes.read_kit`, which needs torch and numpy only. Prints a line a volume.
"""

from pathlib import Path

import click

from benchmarks.packed_volumes import write_kit
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import load_params
from ctinterp_dagster.pipeline.trainings.training import thin_volumes


@click.command
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--mib", default=50.0, help="largest size of the folder")
@click.option("--data", "root", type=click.Path(path_type=Path), default=".", help="the project's root")
def main(folder: Path, mib: float, root: Path) -> None:
    """Pack."""
    layout = Layout(root)
    weights = load_params(layout.params).expect.weights
    for row in write_kit(folder, thin_volumes(layout, "train", weights), thin_volumes(layout, "val"), mib):
        kept, whole = ("x".join(map(str, size)) for size in (row.shape_zyx, row.whole_zyx))
        print(f"{row.split} {row.case}: {kept} of {whole}, {row.bits_per_voxel:.2f} bits a voxel")


if __name__ == "__main__":
    main()
