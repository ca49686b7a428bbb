#!/usr/bin/env bash
# Bet: the `_Tilt_` file of dcm2niix, whose slices are resampled to remove the tilt, shows a rod where it was, whichever
# way the gantry leans. (dcm2niix-tilt-two-files.sh has the other file.)
#
# Seen: dcm2niix 1.0.20260724, the newest on PyPI, read by nibabel 5.4.2 and SimpleITK 2.5.7. For +20 degrees it does, to
# 0.6 mm. For -20 degrees, with orientations that lean the other way, it is off by 18.1 mm, nearly all along the table.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dcm2niix==1.0.20260724 nibabel==5.4.2 SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import math
import os
import subprocess

import nibabel
import numpy as np
import SimpleITK
from pydicom import examples
from pydicom.uid import generate_uid

SLICES, STEP, SIZE = 10, 5.0, 32
rod = np.zeros((SIZE, SIZE), np.int16)
rod[20:23, 10:13] = 2000  # its middle is row 21, column 11, of each slice: a rod along the table
off = {}
for degrees in (20, -20):
    tilt, folder = math.radians(degrees), f"dicom{degrees}"
    os.mkdir(folder)
    for k in range(SLICES):
        dataset = examples.ct
        dataset.GantryDetectorTilt = degrees
        dataset.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(tilt), 6), round(-math.sin(tilt), 6)]
        dataset.ImagePositionPatient = [-SIZE, -SIZE, STEP * k]
        dataset.PixelSpacing, dataset.SliceThickness = [2, 2], round(STEP * math.cos(tilt), 6)
        dataset.Rows = dataset.Columns = SIZE
        dataset.InstanceNumber, dataset.SOPInstanceUID = k + 1, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PixelData = rod.tobytes()
        dataset.save_as(f"{folder}/{k}.dcm")
    command = ["venv/bin/dcm2niix", "-z", "n", "-f", f"head{degrees}", "-o", ".", folder]
    subprocess.run(command, check=True, capture_output=True)
    k, name = SLICES - 1, f"head{degrees}_Tilt_1.nii"
    right = np.array([-SIZE + 2 * 11, -SIZE + 2 * 21 * math.cos(tilt), STEP * k - 2 * 21 * math.sin(tilt)])  # LPS
    image = nibabel.load(name)
    i, j = np.argwhere(image.get_fdata()[:, :, k] > 0).mean(axis=0).tolist()
    by_nibabel = nibabel.affines.apply_affine(image.affine, [i, j, k]) * [-1, -1, 1]
    by_itk = SimpleITK.ReadImage(name).TransformContinuousIndexToPhysicalPoint([i, j, k])
    off[degrees] = [round(float(np.linalg.norm(place - right)), 1) for place in (by_nibabel, by_itk)]
    print(f"{degrees:+d} degrees: right {right.round(2)}, nibabel {by_nibabel.round(2)}, off by {off[degrees]} mm")
assert max(off[20]) < 1  # half a pixel of 2 mm, from the resampling
assert off[-20] == [18.1, 18.1]
PYTHON
