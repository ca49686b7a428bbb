"""Small whole scans in every format that is read, the same bytes in every run."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from ctinterp_dagster.scan.io import write_volume

from .conftest import ct_slice, enhanced_ct, plain_volume

SLICES = 4
TARGET = "003.dcm"
Files = dict[str, bytes]


def _dicom(*, implicit: bool = False, codec: str = "") -> Files:
    """Slices of one series; all the same bytes in every run."""
    files = {}
    for k in range(SLICES):
        dataset = ct_slice((-10.0, 20.0, 100.0 + 2 * k), value=300 * k, size=(16, 16))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        dataset.file_meta.ImplementationClassUID = "1.2.4"
        if codec == "RLE":
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif codec:
            _compress(dataset, codec)
        if implicit:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        files[f"{k:03d}.dcm"] = stream.getvalue()
    return files


def _compress(dataset: pydicom.FileDataset, codec: str) -> None:
    """Give a data set the pixels that GDCM makes of its own: JPEG, JPEG 2000."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "a.dcm")
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(file)
        writer.UseCompressionOn()
        writer.SetCompressor(codec)
        writer.Execute(SimpleITK.GetImageFromArray(dataset.pixel_array[None].astype(np.int16)))
        packed = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    dataset["PixelData"] = packed["PixelData"]


def _enhanced() -> Files:
    """Four frames in one file."""
    dataset = enhanced_ct([0.0, 3.0, 6.0, 9.0], [(1, -1024)] * 4)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    dataset.file_meta.ImplementationClassUID = "1.2.4"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return {TARGET: stream.getvalue()}


def _volume_file(name: str) -> Files:
    hu = np.linspace(-1000, 400, 6 * 12 * 14).round().reshape(6, 12, 14)
    with tempfile.TemporaryDirectory() as folder:
        write_volume(plain_volume(hu), Path(folder) / name)
        return {name: (Path(folder) / name).read_bytes()}


def _nifti2() -> Files:
    one = nib.Nifti1Image.from_bytes(_volume_file("v.nii")["v.nii"])
    return {"v.nii": nib.Nifti2Image(np.asarray(one.dataobj), one.affine).to_bytes()}


def _itk_packed(name: str) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"a{Path(name).suffix}"
        plain.write_bytes(_volume_file(plain.name)[plain.name])
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(plain)), str(Path(folder) / name), useCompression=True)
        return {name: (Path(folder) / name).read_bytes()}


def _detached() -> Files:
    with tempfile.TemporaryDirectory() as folder:
        image = SimpleITK.GetImageFromArray(np.linspace(-1000, 400, 480).astype(np.int16).reshape(6, 8, 10))
        SimpleITK.WriteImage(image, str(Path(folder) / "v.mhd"))
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in files.items():
            opened.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


SEEDS: dict[str, Callable[[], Files]] = {
    "DICOM": _dicom,
    "DICOM, implicit": lambda: _dicom(implicit=True),
    "DICOM, JPEG 2000": lambda: _dicom(codec="JPEG2000"),
    "DICOM, JPEG": lambda: _dicom(codec="JPEG"),
    "DICOM, RLE": lambda: _dicom(codec="RLE"),
    "DICOM, multi-frame": _enhanced,
    "NIfTI-1": lambda: _volume_file("v.nii"),
    "NIfTI-2": _nifti2,
    "NIfTI, gzip": lambda: _volume_file("v.nii.gz"),
    "MHA": lambda: _volume_file("v.mha"),
    "MHA, packed": lambda: _itk_packed("v.mha"),
    "MHD": _detached,
    "NRRD": lambda: _volume_file("v.nrrd"),
    "NRRD, packed": lambda: _itk_packed("v.nrrd"),
    "zip": lambda: {"s.zip": zipped(_dicom())},
}


@cache
def seed(name: str) -> Files:
    return SEEDS[name]()
