#!/usr/bin/env bash
# Bet: SimpleITK, which warns of a series whose slices are uneven, also warns of one of a tilted gantry, as it has no
# place for its shear; or puts every slice where its header says.
#
# Seen: SimpleITK 2.5.7, the newest on PyPI, reads ten slices every 5 mm, tilted by 20 degrees, as a straight stack along
# the slice normal, in silence. Its last slice lies 15.6 mm off. The slices are 5 mm apart in it, and 4.7 mm in truth.
# With one slice missing, and no tilt, it warns.
#
# Why: itk::ImageSeriesReader takes the length of the step from slice to slice for the distance, and the direction of the
# first slice for all; it compares the lengths of steps, and these are even.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
cat > read.py <<'PYTHON'
import sys

import numpy as np
import SimpleITK

reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
image = reader.Execute()
place = image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1))
print(round(float(np.linalg.norm(np.subtract(place, [-32.0, -32.0, 45.0]))), 1), round(image.GetSpacing()[2], 3))
PYTHON
venv/bin/python - <<'PYTHON'
import math
import os
import subprocess

from pydicom import examples
from pydicom.uid import generate_uid

SLICES, STEP = 10, 5.0
said = {}
for name, degrees, missing in (("tilted", 20, None), ("a slice missing", 0, 4)):
    tilt = math.radians(degrees)
    os.mkdir(name)
    for k in range(SLICES):
        dataset = examples.ct
        dataset.GantryDetectorTilt = degrees
        dataset.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(tilt), 6), round(-math.sin(tilt), 6)]
        dataset.ImagePositionPatient = [-32, -32, STEP * k]
        dataset.SliceThickness = round(STEP * math.cos(tilt), 6)
        dataset.InstanceNumber, dataset.SOPInstanceUID = k + 1, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        if k != missing:
            dataset.save_as(f"{name}/{k}.dcm")
    ran = subprocess.run(["venv/bin/python", "read.py", name], capture_output=True, text=True, check=True)
    off, distance = map(float, ran.stdout.split())
    said[name] = off, distance, "Non uniform sampling or missing slices" in ran.stderr, bool(ran.stderr)
    print(f"{name}: the last slice is {off} mm off, slices {distance} mm apart; standard error: {ran.stderr!r}")
assert said["tilted"] == (15.6, 5.0, False, False)
assert said["a slice missing"] == (0.0, 5.625, True, True)
PYTHON
