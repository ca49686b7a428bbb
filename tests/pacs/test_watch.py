"""What a watch takes, leaves and remembers; the archive is a folder."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from ctinterp_dagster.errors import PacsError, ParamsError
from ctinterp_dagster.pacs import Images, Query, Series, WatchRule
from ctinterp_dagster.pacs import watch as watching
from ctinterp_dagster.pacs.archive import images_of, series_of
from ctinterp_dagster.pacs.watch import RefusedError, Watch
from ctinterp_dagster.pacs.watch_state import WatchState
from tests.pacs.builders import thick_series
from tests.pacs.kills import stand_in

RULE = WatchRule(
    source="archive", description="thick*", min_thickness_mm=3, days=36500, interval_s=1, quiet_s=0, action="restore"
)


class Folder:
    """An archive that is a folder of files, and counts what it is sent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.drops = folder, [], False
        folder.mkdir()

    def _headers(self) -> list[tuple[Path, pydicom.Dataset]]:
        return [(file, pydicom.dcmread(file)) for file in sorted(self.folder.iterdir())]

    def find(self, query: Query) -> list[Series]:
        found = [series_of(d) for _, d in self._headers()]
        count = Counter(series.uid for series in found)
        listed = {series.uid: replace(series, count=str(count[series.uid])) for series in found}
        return [series for series in listed.values() if query.takes(series)]

    def images(self, series: Series) -> Images:
        return images_of([d for _, d in self._headers() if d.SeriesInstanceUID == series.uid])

    def fetch(self, series: Series, folder: Path) -> None:
        for file, dataset in self._headers():
            if dataset.SeriesInstanceUID == series.uid:
                shutil.copy(file, folder)

    def send(self, files: Sequence[Path]) -> None:
        for file in files:
            self.sent.append(str(pydicom.dcmread(file).SOPInstanceUID))
            if not self.drops:
                shutil.copy(file, self.folder / f"{self.sent[-1]}.dcm")


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    tmp_path.joinpath("state").mkdir()
    told: list[str] = []
    return Watch(
        archive=Folder(tmp_path / "archive"),
        rule=RULE,
        state=WatchState.open(tmp_path / "state" / "state.sqlite"),
        folder=tmp_path / "state" / "series",
        restore=stand_in,
        add=lambda _: None,
        tell=told.append,
        key=b"key",
    )


def _told(watch: Watch) -> str:
    """What one look tells, without the pseudonym; nothing of the patient may be in it."""
    told: list[str] = []
    replace(watch, tell=told.append).look()
    assert not [word for word in ("Doe", "MRN", "Thick", "1.2.840") if word in "".join(told)]
    return "; ".join(said.split(": ", 1)[1] for said in told)


def test_a_series_is_restored_once(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    assert [_told(watch), _told(watch)] == ["6 images, sent: 30 images", ""]
    assert len(set(watch.archive.sent)) == len(watch.archive.sent) == 30
    assert list(watch.folder.iterdir()) == [], "no image of a patient is left"


def test_slices_that_come_late_make_another_result(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    _told(watch)
    thick_series(tmp_path / "archive", 1, count=8)
    assert _told(watch) == "8 images, sent: 40 images"


def test_other_images_in_the_place_of_as_many_make_another_result(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, asked = thick_series(tmp_path / "archive", 1), []
    _told(watch)
    for k, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.840.8.{k}"
        dataset.save_as(file)
    listed = watch.archive.images
    watch.archive.images = lambda series: (asked.append(series), listed(series))[1]
    assert (_told(watch), asked) == ("", []), "an archive is not asked for all images at each look"
    monkeypatch.setattr(watching, "UNASKED_S", 0)
    assert _told(watch) == "6 images, sent: 30 images"
    assert len(set(watch.archive.sent)) == len(watch.archive.sent) == 60
    monkeypatch.undo()
    asked.clear()
    assert (_told(watch), asked) == ("", [])


def test_a_series_has_to_be_quiet(watch: Watch, tmp_path: Path) -> None:
    patient = replace(watch, rule=RULE.model_copy(update={"quiet_s": 1e9}))
    thick_series(tmp_path / "archive", 1)
    assert [_told(patient), _told(patient)] == ["", ""]
    assert patient.archive.sent == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"step_mm": 1.0}, "6 images, thin"),
        ({"step_mm": 1.0, "SliceThickness": None}, "6 images, thin"),
        ({"Manufacturer": "ctinterp"}, ""),
        ({"SeriesDescription": "Scout"}, ""),
        ({"Modality": "MR"}, ""),
        ({"ImagesInAcquisition": 7}, "6 images, incomplete: 6 images of 7 that its headers count"),
    ],
)
def test_other_series_are_left(watch: Watch, tmp_path: Path, tags: dict[str, object], said: str) -> None:
    thick_series(tmp_path / "archive", 1, **tags)
    assert _told(watch).startswith(said)
    assert _told(watch) == ""
    assert watch.archive.sent == []


def test_a_result_is_known_where_the_list_names_no_maker(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1, Manufacturer="ctinterp")
    listed = watch.archive.find
    watch.archive.find = lambda query: [replace(series, maker="") for series in listed(query)]
    assert _told(watch) == "6 images, own"


def test_what_is_refused_is_refused_until_it_is_asked_again(watch: Watch, tmp_path: Path) -> None:
    def refuse(*_: Path) -> None:
        raise RefusedError("'Doe Jane' has no HU")

    thick_series(tmp_path / "archive", 1)
    assert _told(replace(watch, restore=refuse)) == "6 images, refused: ... has no HU"
    assert _told(watch) == ""
    watch.state.forget_refused()
    assert _told(watch) == "6 images, sent: 30 images"


def test_an_archive_that_fails_is_asked_again_and_nothing_is_made_twice(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    made: list[Path] = []
    counting = replace(watch, restore=lambda thick, thin: (made.append(thin), stand_in(thick, thin))[1])
    watch.archive.drops = True
    assert _told(counting) == (
        "the archive lists 0 of 30 images: it dropped the others: look at its log; again at the next look"
    )
    watch.archive.drops = False
    assert _told(counting) == "6 images, sent: 30 images"
    assert len(made) == 1

    def away(_: Query) -> list[Series]:
        raise PacsError("server: is it running?")

    watch.archive.find = away
    assert _told(watch) == "is it running?; again at the next look"


def test_a_series_that_is_still_arriving_when_it_is_fetched_is_fetched_again(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    listed = watch.archive.images
    watch.archive.images = lambda series: replace(listed(series), uids=listed(series).uids | {"1.2.3"})
    assert "6 images came of 7: they are still arriving" in _told(watch)
    watch.archive.images = listed
    assert _told(watch) == "6 images, sent: 30 images"


def test_images_of_a_series_that_is_gone_or_changed_are_not_kept(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    watch.archive.drops = True
    _told(watch)
    (left,) = watch.folder.iterdir()
    thick_series(tmp_path / "archive", 1, count=8)
    watch.archive.drops = False
    assert _told(watch) == "8 images, sent: 40 images"
    assert not left.exists()
    thick_series(tmp_path / "archive", 2)
    watch.archive.drops = True
    _told(watch)
    for file in (tmp_path / "archive").glob("002-*"):
        file.unlink()
    _told(watch)
    assert list(watch.folder.iterdir()) == []


def test_a_series_can_go_into_the_project_instead(watch: Watch, tmp_path: Path) -> None:
    thick_series(tmp_path / "archive", 1)
    added: list[int] = []
    rule = RULE.model_copy(update={"action": "add"})
    adding = replace(watch, rule=rule, add=lambda folder: added.append(len(list(folder.iterdir()))))
    assert (_told(adding), added, adding.archive.sent) == ("6 images, added", [6], [])


def test_two_watches_do_not_share_a_state(watch: Watch, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="expected the state of a watch that does not run"):
        WatchState.open(tmp_path / "state" / "state.sqlite")
    watch.state.database.close()
    WatchState.open(tmp_path / "state" / "state.sqlite").database.close()
    (tmp_path / "other").write_bytes(b"no database" * 100)
    with pytest.raises(ParamsError, match="expected the state"):
        WatchState.open(tmp_path / "other")
