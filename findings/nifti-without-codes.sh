#!/usr/bin/env bash
# Bet: all readers put a NIfTI file with qform_code = sform_code = 0 at one place, that of nifti1.h, METHOD 1:
# x = pixdim[1] * i, y = pixdim[2] * j, z = pixdim[3] * k.
#
# Seen: neither library does, and they differ. nibabel 5.4.2 lets x run to the left and puts 0 at the centre of the
# image; SimpleITK 2.5.7 lets x run to the left and y to the back, with 0 at the first voxel. So the front of the
# patient for one is the back for the other. Both are the newest on PyPI, and neither says anything.
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

image = nibabel.Nifti1Image(np.zeros((11, 21, 31), np.int16), None)
image.header.set_zooms((1, 1, 2))
image.header.set_xyzt_units("mm")
nibabel.save(image, "image.nii")
header = nibabel.load("image.nii").header
assert header["qform_code"] == header["sform_code"] == 0

itk = SimpleITK.ReadImage("image.nii")
seen = {}
for voxel in ((0, 0, 0), (10, 20, 30)):
    x, y, z = itk.TransformIndexToPhysicalPoint(voxel)
    seen[voxel] = nibabel.affines.apply_affine(nibabel.load("image.nii").affine, voxel).tolist(), [0 - x, 0 - y, z]
    method1 = [voxel[0], voxel[1], 2 * voxel[2]]
    print(f"voxel {voxel} in RAS+: METHOD 1 {method1}, nibabel {seen[voxel][0]}, SimpleITK {seen[voxel][1]}")
assert seen == {(0, 0, 0): ([5, -10, -30], [0, 0, 0]), (10, 20, 30): ([-5, 10, 30], [-10, -20, 60])}
PYTHON
