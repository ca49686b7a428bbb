#!/usr/bin/env bash
# Bet: `image.affine` of nibabel maps voxels to millimetres. nibabel's page "Coordinate systems and affines" says of its
# reference space, scanner RAS+: "The units for all three axes are millimeters".
#
# Seen: nibabel 5.4.2, the newest on PyPI, gives the numbers as they are in the file. With `xyzt_units` metre the affine
# and `get_zooms()` are a thousandth, with micron a thousandfold of millimetres. SimpleITK 2.5.7 converts.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq nibabel==5.4.2 SimpleITK==2.5.7 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

seen = {}
for unit, size in (("mm", 2), ("meter", 0.002), ("micron", 2000)):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([size, size, size, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, "image.nii")
    read = nibabel.load("image.nii")
    zoom = round(float(read.header.get_zooms()[0]), 6)
    seen[unit] = round(float(read.affine[0, 0]), 6), zoom, round(SimpleITK.ReadImage("image.nii").GetSpacing()[0], 6)
    print(f"voxels of 2 mm in {unit:6}: nibabel affine and zoom {seen[unit][:2]}, SimpleITK {seen[unit][2]}")
assert seen == {"mm": (2, 2, 2), "meter": (0.002, 0.002, 2), "micron": (2000, 2000, 2)}
PYTHON
