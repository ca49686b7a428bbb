#!/usr/bin/env bash
# Bet: a CT with tilted gantry is one NIfTI file after dcm2niix, at its place. An sform can hold the shear (nifti1.h,
# METHOD 3), and dcm2niix's FILENAMING.md says of _Tilt that the slices are resampled to remove the tilt.
#
# Seen: dcm2niix 1.0.20260724, the newest on PyPI, writes two files. In `*_Tilt_1.nii` a rod is where it was, to 0.6
# mm. In the other, whose name is the plain one, the sform is sheared, but its step from slice to slice is as short as
# the distance of the planes (4.70 mm where the table moved 5 mm): nibabel 5.4.2 puts the last of 10 slices 2.7 mm
# off. SimpleITK 2.5.7 takes the qform, which holds no shear: 15.4 mm off, and says nothing.
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

TILT, SLICES, STEP, SIZE = math.radians(20), 10, 5.0, 32
rod = np.zeros((SIZE, SIZE), np.int16)
rod[20:23, 10:13] = 2000  # its middle is row 21, column 11, of each slice: a rod along the table
os.mkdir("dicom")
for k in range(SLICES):
    dataset = examples.ct
    dataset.GantryDetectorTilt = 20
    dataset.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(TILT), 6), round(-math.sin(TILT), 6)]
    dataset.ImagePositionPatient = [-SIZE, -SIZE, STEP * k]
    dataset.PixelSpacing, dataset.SliceThickness = [2, 2], round(STEP * math.cos(TILT), 6)
    dataset.Rows = dataset.Columns = SIZE
    dataset.InstanceNumber, dataset.SOPInstanceUID = k + 1, generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = rod.tobytes()
    dataset.save_as(f"dicom/{k}.dcm")
subprocess.run(["venv/bin/dcm2niix", "-z", "n", "-f", "head", "-o", ".", "dicom"], check=True, capture_output=True)

k = SLICES - 1
right = np.array([-SIZE + 2 * 11, -SIZE + 2 * 21 * math.cos(TILT), STEP * k - 2 * 21 * math.sin(TILT)])  # LPS
print("the rod in the last slice, LPS:", right.round(2))
off = {}
for name in ("head.nii", "head_Tilt_1.nii"):
    image = nibabel.load(name)
    i, j = np.argwhere(image.get_fdata()[:, :, k] > 0).mean(axis=0).tolist()
    by_nibabel = nibabel.affines.apply_affine(image.affine, [i, j, k]) * [-1, -1, 1]
    by_itk = SimpleITK.ReadImage(name).TransformContinuousIndexToPhysicalPoint([i, j, k])
    off[name] = [round(float(np.linalg.norm(place - right)), 1) for place in (by_nibabel, by_itk)]
    print(f"{name}: nibabel {by_nibabel.round(2)}, SimpleITK {np.round(by_itk, 2)}, off by {off[name]} mm")
assert sorted(name for name in os.listdir() if name.endswith(".nii")) == sorted(off)
assert off["head.nii"] == [2.7, 15.4] and max(off["head_Tilt_1.nii"]) < 1  # half a pixel of 2 mm, from the resampling
PYTHON
