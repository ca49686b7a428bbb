#!/usr/bin/env bash
# Bet: a length has its unit. NRRD has `space units` (teem.sourceforge.net/nrrd/format.html, "space units"), MetaImage
# `DistanceUnits` (MetaIO writes um, mm or cm), NIfTI `xyzt_units` (nifti1.h). A reader converts them all, or none.
#
# Seen: SimpleITK 2.5.7 (ITK), the newest on PyPI, gives a voxel of 2 cm as 20 mm from NIfTI (in metre), but as 2 from
# NRRD and MetaImage: ten times too small. Of the MetaImage's unit a note stays in the metadata; of the NRRD's, nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 nibabel==5.4.2 pynrrd==1.1.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import nibabel
import nrrd
import numpy as np
import SimpleITK

voxels = np.zeros((2, 2, 2), np.int16)
nifti = nibabel.Nifti1Image(voxels, np.diag([0.02, 0.02, 0.02, 1]))
nifti.header.set_xyzt_units("meter")
nibabel.save(nifti, "image.nii")
directions = {"space directions": 2 * np.eye(3), "space origin": np.zeros(3)}
nrrd.write("image.nrrd", voxels, {"space": "left-posterior-superior", **directions, "space units": ["cm"] * 3})
with open("image.mha", "wb") as file:
    file.write(
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDistanceUnits = cm\n"
        b"ElementSpacing = 2 2 2\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        + voxels.tobytes()
    )

spacing, notes = {}, {}
for suffix in ("nii", "nrrd", "mha"):
    image = SimpleITK.ReadImage(f"image.{suffix}")
    spacing[suffix] = round(image.GetSpacing()[0], 4)
    notes[suffix] = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if "cm" in image.GetMetaData(key)}
    print(f"{suffix:5} spacing {spacing[suffix]}, metadata that names the unit: {notes[suffix]}")
assert spacing == {"nii": 20, "nrrd": 2, "mha": 2}
assert notes["nrrd"] == {} and notes["mha"] == {"ITK_VoxelUnits": "cm"}
PYTHON
