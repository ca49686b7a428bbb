#!/usr/bin/env bash
# Bet: every frame of an Enhanced CT comes out in HU by its own rescale. Slope and intercept may stand in the per-frame
# functional groups (DICOM PS3.3 C.7.6.16.2.9, Pixel Value Transformation Macro; for CT C.8.15.3.10).
#
# Seen: SimpleITK 2.5.7 (GDCM) gives every frame the rescale of the first one, and says nothing. pydicom 3.0.2's
# apply_rescale gives the stored values back, and says nothing (known: pydicom issue 2353). Both are the newest on PyPI.
# dcm2niix 1.0.20260724 and 1.0.20250506 have it right; 1.0.20220720 (Debian 12) gives every frame that of the last.
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
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def frame(k, slope, intercept):
    return item(
        FrameContentSequence=[item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1])],
        PlanePositionSequence=[item(ImagePositionPatient=[0, 0, k])],
        PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")],
    )


shared = item(
    PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=1, SpacingBetweenSlices=1)],
    PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
)
dataset = item(
    SOPClassUID=EnhancedCTImageStorage, SOPInstanceUID=generate_uid(), Modality="CT",
    StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid(), FrameOfReferenceUID=generate_uid(),
    ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], InstanceNumber=1, NumberOfFrames=3, Rows=2, Columns=2,
    SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=16, BitsStored=16, HighBit=15,
    PixelRepresentation=0, SharedFunctionalGroupsSequence=[shared],
    PerFrameFunctionalGroupsSequence=[frame(0, 1, -1024), frame(1, 0.5, -1000), frame(2, 2, 8)],
    PixelData=np.repeat(np.uint16([0, 100, 200]), 4).tobytes(),
)
dataset.file_meta = FileMetaDataset()
dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
dataset.save_as("enhanced.dcm", enforce_file_format=True)

read = dcmread("enhanced.dcm")
convert = ["venv/bin/dcm2niix", "-z", "n", "-f", "out", "-s", "y", "enhanced.dcm"]
subprocess.run(convert, check=True, capture_output=True)
seen = {
    "right": [0 - 1024, 100 * 0.5 - 1000, 200 * 2 + 8],
    "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("enhanced.dcm"))[:, 0, 0].tolist(),
    "pydicom": apply_rescale(read.pixel_array, read)[:, 0, 0].tolist(),
    "dcm2niix": nibabel.load("out.nii").get_fdata()[0, 0].tolist(),
}
for name, values in seen.items():
    print(f"{name:10}", values)
assert list(seen.values()) == [[-1024, -950, 408], [-1024, -924, -824], [0, 100, 200], [-1024, -950, 408]]
PYTHON
