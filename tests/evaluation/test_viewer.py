"""Pictures and pages of a scan before and after."""

import base64
import gzip
import io
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from ctinterp_dagster.errors import GeometryError
from ctinterp_dagster.evaluation import viewer
from ctinterp_dagster.evaluation.preview import TITLE, before_after
from ctinterp_dagster.scan.volume import Volume
from tests.orchestration.browser import Browser
from tests.phantoms import phantom


def scans(up: float = 1.0) -> tuple[Volume, Volume]:
    hu = np.full((40, 30, 20), -150.0, np.float32)
    hu[20:] = 200.0  # the end that the array has last
    hu[20:, :, :10] = 0.0
    thin = Volume(hu, (1.0, 2.0, 2.0), (0.0, 0.0, 0.0), np.diag([1.0, 1.0, up]))
    return thin.with_slices(hu.reshape(8, 5, 30, 20).mean(1), 2.0, 5.0), thin


@pytest.mark.parametrize("up", [1, -1])
def test_before_and_after_has_the_head_up_and_the_left_on_the_right(up: int) -> None:
    picture = np.asarray(Image.open(io.BytesIO(before_after(*scans(up))))).astype(float)[TITLE:]
    for panel in np.array_split(picture, 4, axis=1)[:2]:  # soft tissue
        coronal = panel[: len(panel) // 2]
        head, feet = (half[10:-10] for half in np.array_split(coronal[:: int(up)], 2))
        assert head.mean() - feet.mean() > 50
        right, left = np.array_split(head[:, 60:-60], 2, axis=1)
        assert left.mean() - right.mean() > 50


def test_before_and_after_has_true_lengths_and_the_same_bytes_each_time() -> None:
    thick, thin = scans()
    picture = Image.open(io.BytesIO(before_after(thick, thin)))
    assert picture.height == pytest.approx(2 * 320 * 40 / 60 + TITLE, abs=20)
    assert before_after(thick, thin) == before_after(thick, thin)


def content_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="content">(.*?)</script>', page)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_the_page_holds_whole_hu_in_their_place() -> None:
    thick, thin = scans()
    content = content_of(viewer.page(thick, thin, None, None, "</script><b>"))
    assert content["title"] == "</script><b>"
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content["volumes"]["thin"])))
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), thin.hu)
    assert image.affine @ [1, 2, 3, 1] == pytest.approx([*(-1, -1, 1) * thin.point_mm((3, 2, 1)), 1])
    difference = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content["volumes"]["difference"])))
    assert np.asarray(difference.dataobj).max() == 0  # each thick slice is one value here


def test_large_scans_are_shown_with_pixels_that_are_means(monkeypatch: pytest.MonkeyPatch) -> None:
    thick, thin = scans()
    monkeypatch.setattr(viewer, "MOST_VOXELS", thin.hu.size // 2)
    content = content_of(viewer.page(thick, thin, None, None, "t"))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content["volumes"]["thin"])))
    assert (content["shrink"], image.shape) == (2, (10, 15, 40))
    middle = thin.point_mm((0, 0.5, 0.5))
    assert image.affine @ [0, 0, 0, 1] == pytest.approx([*(-1, -1, 1) * middle, 1])


def test_niivue_is_the_published_file() -> None:
    script = Path(viewer.__file__).parent / "niivue" / "niivue.umd.js"  # @niivue/niivue 0.69.0 of npm
    assert sha256(script.read_bytes()).hexdigest() == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def test_another_grid_is_refused() -> None:
    thick, thin = scans()
    with pytest.raises(GeometryError, match="standard deviation has"):
        viewer.page(thick, thin, thick, None, "t")


@pytest.mark.slow
def test_a_browser_shows_both_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    thin = phantom(0, shape_zyx=(40, 48, 48), spacing_mm=(1.0, 2.0, 2.0), noise_hu=10.0)
    thick = thin.with_slices(thin.hu.reshape(8, 5, 48, 48).mean(1), 2.0, 5.0)
    file = tmp_path / "look.html"
    file.write_text(viewer.page(thick, thin, thin.with_hu(thin.hu * 0 + 30), thin, "thin.nii.gz"), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        browser.open(file.as_uri(), "ready: all pixels are shown", "thin, slices every 1 mm")

        def pixels() -> np.ndarray[Any, np.dtype[np.float64]]:
            browser.picture(tmp_path / "shot.png")
            return np.asarray(Image.open(tmp_path / "shot.png").convert("L")).astype(float)[110:600]

        first = pixels()
        left, right = np.array_split(first, 2, axis=1)
        assert left.std() > 10 < right.std()
        assert np.abs(left - right).mean() > 1, "thick and thin look the same"
        browser.click("bone")
        assert np.abs(pixels() - first).mean() > 1, "the window changes nothing"
        browser.click("soft tissue")
        slider = "document.getElementById('blend')"
        browser.read(f"{slider}.value = 1; {slider}.dispatchEvent(new Event('input'))")
        left, right = np.array_split(pixels(), 2, axis=1)
        assert np.abs(left - right).mean() < 0.5, "the slider does not blend"
        browser.read(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
        browser.click("truth")
        left, right = np.array_split(pixels(), 2, axis=1)
        assert np.abs(left - right).mean() < 0.5, "the truth, here the thin scan, is not shown as it is"
        browser.click("std")
        assert "its standard deviation" in browser.read("document.body.innerText")
        assert browser.read("performance.getEntriesByType('resource').length") == 0


def test_a_thin_scan_that_is_stored_the_other_way_round_differs_as_much() -> None:
    thick, thin = scans()
    noisy = thin.with_hu(thin.hu + np.arange(40, dtype=np.float32)[:, None, None])
    last = noisy.point_mm((39, 0, 0))
    origin = float(last[0]), float(last[1]), float(last[2])
    turned = Volume(noisy.hu[::-1].copy(), noisy.spacing_mm, origin, np.diag([1.0, 1.0, -1.0]))
    one, other = viewer.stretched(thick, noisy), viewer.stretched(thick, turned)
    assert one is not None
    assert other is not None
    assert np.array_equal(one, other[::-1])


def test_no_difference_is_shown_of_scans_whose_pixels_do_not_lie_over_each_other() -> None:
    thick, thin = scans()
    half = Volume(thick.hu[:, ::2, ::2].copy(), (5.0, 4.0, 4.0), thick.origin_mm, thick.direction)
    assert "difference" not in content_of(viewer.page(half, thin, None, None, "t"))["volumes"]


def test_a_standard_deviation_of_another_place_is_refused() -> None:
    thick, thin = scans()
    moved = Volume(thin.hu, thin.spacing_mm, (500.0, 0.0, 0.0), thin.direction)
    with pytest.raises(GeometryError, match="standard deviation has"):
        viewer.page(thick, thin, moved, None, "t")


@pytest.mark.parametrize("shape", [(8, 100, 1), (400, 3, 3)])
def test_a_preview_of_any_shape_is_a_picture(shape: tuple[int, int, int]) -> None:
    thick = Volume(np.zeros(shape, np.float32), (5.0, 0.1, 0.7), (0.0, 0.0, 0.0), np.eye(3))
    assert Image.open(io.BytesIO(before_after(thick, thick))).height < 4000
