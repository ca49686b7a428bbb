"""Public data sets that `ctinterp scans add --layout` takes: one row each.

Where a licence could not be read at its source, the row says where to confirm it, and so does scans.csv of each scan.
"""

from dataclasses import dataclass

CONFIRM = "confirm at "


@dataclass(frozen=True)
class DataSet:
    """How a data set lies on disk, and under which terms.

    Attributes:
        name: on the command line; the folder of its scans in data/raw.
        lies: how its files lie, for people.
        scans: pattern of the place of a scan below the data set's folder, a file or a folder of DICOM; its groups
            `patient` and, where the data set has one, `split`.
        licence: its name, or where to confirm it, or both.
        citation: of its paper.
        stated: where the layout and the licence stand.
        dicom: a scan is a folder of DICOM; else a file.
        in_unit: values are [0, 1] of [-1024, 2048] HU, and are brought back to HU.
        rewritten: a scan is several files, or not in HU: it becomes one `.nii.gz` file of the same values.
        partner: pattern of the place of its thick partner, with the groups of `scans`; empty where there is none.
    """

    name: str
    lies: str
    scans: str
    licence: str
    citation: str
    stated: str
    dicom: bool = False
    in_unit: bool = False
    rewritten: bool = False
    partner: str = ""


TABLE = (
    DataSet(
        name="lidc-idri",
        lies="LIDC-IDRI-0001/STUDY/SERIES/*.dcm",
        scans=r"(?:.*/)?(?P<patient>LIDC-IDRI-\d{4})/.+",
        licence="CC BY 3.0",
        citation="Armato et al. 2011, Medical Physics 38:915-931",
        stated="https://luna16.grand-challenge.org/Data (licence); https://www.cancerimagingarchive.net (layout)",
        dicom=True,
    ),
    DataSet(
        name="luna16",
        lies="subset0/SERIESUID.mhd with .raw; scans of LIDC-IDRI: add one of the two",
        scans=r"(?:.*/)?subset\d/(?P<patient>[\d.]+)\.mhd",
        licence="CC BY 4.0",
        citation="Setio et al. 2017, Medical Image Analysis 42:1-13; Armato et al. 2011, Medical Physics 38:915-931",
        stated="https://luna16.grand-challenge.org/Data",
        rewritten=True,
    ),
    DataSet(
        name="covid-ct-md",
        lies="COVID-19 Cases/P001/*.dcm, Cap Cases/cap001/*.dcm, Normal Cases/normal001/*.dcm",
        scans=r"(?:.*/)?(?P<patient>(?:P|cap|normal)\d+)",
        licence=f"{CONFIRM}https://doi.org/10.6084/m9.figshare.12991592",
        citation="Afshar et al. 2021, Scientific Data 8:121",
        stated="https://github.com/ShahinSHH/COVID-CT-MD; names of the folders above the patient were not verified",
        dicom=True,
    ),
    DataSet(
        name="rplhr-ct",
        lies="train/1mm/NAME.nii.gz with train/5mm/NAME.nii.gz; val and test alike",
        scans=r"(?:.*/)?(?P<split>train|val|test)/1mm/(?P<patient>[^/]+)\.nii\.gz",
        licence=f"{CONFIRM}https://zenodo.org/records/17239183",
        citation="Yu et al. 2022, MICCAI, pages 344-353 (arXiv 2206.06253)",
        stated="https://github.com/smilenaxx/RPLHR-CT, commit dec3a78, code/utils/in_model.py",
        in_unit=True,
        rewritten=True,
        partner="{split}/5mm/{patient}.nii.gz",
    ),
    DataSet(
        name="cq500",
        lies="CQ500CT0 CQ500CT0/Unknown Study/CT PLAIN THIN/*.dcm",
        scans=r"(?:.*/)?(?P<patient>CQ500CT\d+)[^/]*/.+",
        licence=f"CC BY-NC-SA 4.0; {CONFIRM}http://headctstudy.qure.ai/dataset",
        citation="Chilamkurthy et al. 2018, Lancet 392",
        stated="http://headctstudy.qure.ai/dataset",
        dicom=True,
    ),
    DataSet(
        name="totalsegmentator",
        lies="s0000/ct.nii.gz, resampled to 1.5 mm",
        scans=r"(?:.*/)?(?P<patient>s\d{4})/ct\.nii\.gz",
        licence=f"CC BY 4.0; {CONFIRM}https://zenodo.org/records/10047292",
        citation="Wasserthal et al. 2023, Radiology: Artificial Intelligence 5(5):e230024",
        stated="https://zenodo.org/records/10047292",
    ),
)
NAMES = tuple(row.name for row in TABLE)


def dataset(name: str) -> DataSet:
    """The row of a name."""
    return next(row for row in TABLE if row.name == name)
