#!/usr/bin/env bash
# Bet: a series whose slices differ in rescale comes out in HU. Rescale slope and intercept are attributes of each slice
# (DICOM PS3.3 C.8.2.1), and SimpleITK.ReadImage says of its output: "pixel type ... same as the file".
#
# Seen: SimpleITK 2.5.7, the newest on PyPI, takes the pixel type of the first file for all, and casts the others to it
# without a word. -949.5 HU becomes -949; where the first slice has intercept 0 and no sign, -924 HU becomes 64612. The
# order of the files decides. The notes of ImageSeriesReader warn of it (SimpleITK pull request 1652); ReadImage's
# do not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import numpy as np
import SimpleITK
from pydicom import examples


def slice_(name, stored, slope, intercept, signed):
    dataset = examples.ct
    dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = signed, slope, intercept
    dataset.Rows = dataset.Columns = 2
    del dataset.PixelPaddingValue
    dataset.ImagePositionPatient[2] = dataset.InstanceNumber = len(made)
    dataset.PixelData = np.full(4, stored, np.int16).tobytes()
    dataset.save_as(name)
    made[name] = stored * slope + intercept


made = {}
slice_("whole", 100, 1, -1024, 1)
slice_("half", 101, 0.5, -1000, 1)
slice_("unsigned", 100, 1, 0, 0)
slice_("shifted", 100, 1, -1024, 0)
seen = []
for names in (["whole", "half"], ["half", "whole"], ["unsigned", "shifted"], ["shifted", "unsigned"]):
    image = SimpleITK.ReadImage(names)
    seen.append(SimpleITK.GetArrayFromImage(image)[:, 0, 0].tolist())
    print(f"right {[made[name] for name in names]}, SimpleITK {seen[-1]}, {image.GetPixelIDTypeAsString()}")
assert made == {"whole": -924, "half": -949.5, "unsigned": 100, "shifted": -924}
assert seen == [[-924, -949], [-949.5, -924], [100, 64612], [-924, 100]]
PYTHON
