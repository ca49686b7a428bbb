#!/usr/bin/env bash
# Bet: a NRRD file with `space: right-anterior-superior-time` lies where one with `right-anterior-superior` lies. The
# format (teem.sourceforge.net/nrrd/format.html, "space") has both, and the first three axes are the same.
#
# Seen: SimpleITK 2.5.7 (ITK's NrrdImageIO), the newest on PyPI, turns RAS and LAS into its own LPS, but takes RAS-time
# and LAS-time for LPS, and says nothing: the image of RAS-time is rotated by 180 degrees about the long axis.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 pynrrd==1.1.3 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import nrrd
import numpy as np
import SimpleITK

seen = {}
for space in ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior"):
    for axes in (3, 4):
        header = {
            "space": space + "-time" * (axes == 4),
            "space directions": np.eye(axes),
            "space origin": np.array([10.0, 20, 30, 0])[:axes],
        }
        nrrd.write("image.nrrd", np.zeros((2, 2, 2, 1)[:axes], np.int16), header)
        image = SimpleITK.ReadImage("image.nrrd")
        direction = np.reshape(image.GetDirection(), (axes, axes)).diagonal()[:3].tolist()
        seen[header["space"]] = image.GetOrigin()[:3], direction
        print(f"{header['space']:30} origin in LPS {image.GetOrigin()[:3]}, axes {direction}")
lps, ras, las = ((10, 20, 30), [1, 1, 1]), ((-10, -20, 30), [-1, -1, 1]), ((10, -20, 30), [1, -1, 1])
assert list(seen.values()) == [lps, lps, ras, lps, las, lps]  # right: [lps, lps, ras, ras, las, las]
PYTHON
