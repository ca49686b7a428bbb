#!/usr/bin/env bash
# Bet: where a NIfTI file has an sform and a qform that differ, every reader takes the sform, or every one the qform.
# nifti1.h ("3D IMAGE (VOLUME) ORIENTATION AND LOCATION IN SPACE") leaves the choice to the program.
#
# Seen: SimpleITK 2.5.7 (ITK) changes its choice with the sform's code. Code 1 (scanner): the sform. Codes 2 to 5
# (aligned, Talairach, MNI, other template): the qform, and nothing is said. nibabel 5.4.2 takes the sform always; 2 is
# the code that it gives an image that it makes. Both are the newest on PyPI. The reason is in ITK pull request 1868.
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
for code in (1, 2, 3, 4, 5):
    sform, qform = np.eye(4), np.eye(4)
    qform[2, 3] = 10
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), None)
    image.header.set_xyzt_units("mm")
    image.set_sform(sform, code)
    image.set_qform(qform, 1)
    nibabel.save(image, "image.nii")
    seen[code] = nibabel.load("image.nii").affine[2, 3].item(), SimpleITK.ReadImage("image.nii").GetOrigin()[2]
    print(f"sform z = 0, code {code}; qform z = 10, code 1: nibabel z = {seen[code][0]}, SimpleITK z = {seen[code][1]}")
assert seen == {1: (0, 0), 2: (0, 10), 3: (0, 10), 4: (0, 10), 5: (0, 10)}
assert nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header["sform_code"] == 2
PYTHON
