#!/usr/bin/env bash
# Bet: the stored values of a MONOCHROME1 CT slice become HU by slope and intercept alone. MONOCHROME1 says only that
# the least value is shown white, after any VOI transformation (DICOM PS3.3 C.7.6.3.1.2).
#
# Seen: SimpleITK 2.5.7 (GDCM) inverts the stored values before the rescale, and says nothing: a stored 100 with
# intercept -1024 is -1125 HU (signed) or 64411 HU (unsigned). pydicom 3.0.2 and dcm2niix 1.0.20260724 have -924.
# A signed slice of 12 stored bits is refused. All are the newest on PyPI.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6 dcm2niix==1.0.20260724 nibabel==5.4.2
venv/bin/python - <<'PYTHON'
import subprocess

import nibabel
import numpy as np
import SimpleITK
from pydicom import examples
from pydicom.pixels import apply_rescale

seen = {}
for photometric in ("MONOCHROME2", "MONOCHROME1"):
    for signed in (1, 0):
        slice_ = examples.ct  # slope 1, intercept -1024, 16 bits; a fresh copy each time
        slice_.PhotometricInterpretation, slice_.PixelRepresentation = photometric, signed
        slice_.Rows = slice_.Columns = 2
        del slice_.PixelPaddingValue
        slice_.PixelData = np.full(4, 100, np.int16).tobytes()
        slice_.save_as("slice.dcm")
        convert = ["venv/bin/dcm2niix", "-z", "n", "-w", "1", "-f", "out", "-s", "y", "slice.dcm"]
        subprocess.run(convert, check=True, capture_output=True)
        key = photometric, "signed" if signed else "unsigned"
        seen[key] = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("slice.dcm"))[0, 0, 0].item(),
            apply_rescale(slice_.pixel_array, slice_)[0, 0].item(),
            nibabel.load("out.nii").get_fdata()[0, 0].item(),
        )
        print(*key, dict(zip(("SimpleITK", "pydicom", "dcm2niix"), seen[key])))
assert [values[1:] for values in seen.values()] == [(-924, -924)] * 4
assert [values[0] for values in seen.values()] == [-924, -924, -1125, 64411]

slice_.PixelRepresentation, slice_.BitsStored, slice_.HighBit = 1, 12, 11
slice_.save_as("slice.dcm")
try:
    SimpleITK.ReadImage("slice.dcm")
except RuntimeError as error:
    print("MONOCHROME1 signed, 12 bits:", str(error).splitlines()[-1])
else:
    raise SystemExit("MONOCHROME1, signed, 12 bits is read now")
PYTHON
