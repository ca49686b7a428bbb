#!/usr/bin/env bash
# Bet: a slice that is decoded rightly is read in silence, or `ProcessObject.SetGlobalWarningDisplay(False)` makes it
# silent. JPEG Extended with 12 bits is a transfer syntax of DICOM (PS3.5 section 8.2.1 and annex A.4.1).
#
# Seen: SimpleITK 2.5.7 (GDCM), the newest on PyPI, decodes it rightly, but writes "Unsupported JPEG data precision 12"
# to the standard error of the process, five times for one slice, ten for two. The switch does not stop it,
# nor does `sys.stderr` see it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.4.6
venv/bin/python - <<'PYTHON'
from pydicom import examples
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGExtended12Bit

# ITU-T T.81, annexes B and F: 8 x 6 pixels, one block, all coefficients 0, so that each pixel is 2048.
table = bytes([0xFF, 0xC4, 0, 20]) + b"%c\1" + bytes(16)
start = bytes([0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0, *[1] * 64, 0xFF, 0xC1, 0, 11, 12, 0, 6, 0, 8, 1, 1, 0x11, 0])
scan = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0x3F, 0xFF, 0xD9])
dataset = examples.ct
dataset.file_meta.TransferSyntaxUID = JPEGExtended12Bit
dataset.Rows, dataset.Columns, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 6, 8, 12, 11, 0
del dataset.PixelPaddingValue
dataset.PixelData = encapsulate([start + table % 0 + table % 16 + scan])
dataset.save_as("slice.dcm")
PYTHON
venv/bin/python - 2>stderr.txt <<'PYTHON' || { cat stderr.txt; exit 1; }
import contextlib
import io

import SimpleITK

SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
with contextlib.redirect_stderr(io.StringIO()) as text:
    values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("slice.dcm"))
print("values", values.min(), values.max(), "- sys.stderr saw", repr(text.getvalue()))
assert values.min() == values.max() == 2048 - 1024 and text.getvalue() == ""
PYTHON
cat stderr.txt
test "$(cat stderr.txt)" = "$(yes 'Unsupported JPEG data precision 12' | head -5)"
