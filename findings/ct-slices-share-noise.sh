#!/usr/bin/env bash
# Bet: CT slices 1.5 mm apart are 1.5 mm thick: neighbours measure different tissue, and share no noise.
#
# Seen: the head CT that Debian 12 ships (invesalius-examples 3.1.99998-4) has 108 slices, 1.5 mm apart. In its flattest
# tissue neighbours share 0.49 of their noise, slices two apart 0.06. So they are about twice as thick as their distance:
# of boxes of 3 mm these numbers are 0.50 and 0, of Gaussians 2.1 mm wide 0.50 and 0.06. The file has the distance alone;
# as in NIfTI and NRRD, the thickness is lost. In the two lung CTs of pyradiomics 3.0.1, 5 mm apart, neighbours share
# 0.07: there the bet holds.
#
# Whoever simulates thick slices of such a scan as if its own touched, or takes its slices for independent samples of the
# noise, is wrong by that.
#
# It needs the apt of Debian 12, whose lists are up to date (apt-get update).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq SimpleITK==2.5.7 scipy==1.17.1 numpy==2.4.6 setuptools==80.9.0
venv/bin/pip download -qq --no-deps --no-build-isolation --no-binary pyradiomics pyradiomics==3.0.1
tar xzf pyradiomics-3.0.1.tar.gz
apt-get download -qq -o APT::Sandbox::User=root invesalius-examples=3.1.99998-4
dpkg-deb -x invesalius-examples_*.deb .
tar xzf usr/share/doc/invesalius-examples/examples/Cranium.inv3 --no-same-owner --strip-components=1
venv/bin/python - <<'PYTHON'
import plistlib
from pathlib import Path

import numpy as np
import SimpleITK
from scipy.ndimage import gaussian_filter

LAGS, TILE = 4, 16  # slices so far apart are taken to share no noise; pixels


def tiles(hu):
    """(slices, tiles, pixels) of images (z, y, x)."""
    rows, columns = (size // TILE * TILE for size in hu.shape[1:])
    parts = hu[:, :rows, :columns].reshape(len(hu), rows // TILE, TILE, columns // TILE, TILE)
    return parts.transpose(0, 1, 3, 2, 4).reshape(len(hu), -1, TILE**2)


def shared_noise(hu):
    """Which part of their noise slices 1, 2 and 3 apart share, in the flatter half of soft tissue."""
    smooth = gaussian_filter(hu.astype(np.float32), (0, 2, 2))
    noise, tissue = tiles(hu - smooth), ((tiles(smooth) > 0) & (tiles(smooth) < 90)).all(axis=-1)
    count = len(hu) - LAGS
    everywhere = np.all([tissue[k : k + count] for k in range(LAGS + 1)], axis=0)
    rough = np.max([noise[k : k + count].var(axis=-1) for k in range(LAGS + 1)], axis=0)
    flat = everywhere & (rough < np.median(rough[everywhere]))
    apart = [np.square(noise[k : k + count] - noise[:count])[flat].mean() for k in range(1, LAGS + 1)]
    return [round(float(1 - one / apart[-1]), 2) for one in apart[:-1]]


about = plistlib.loads(Path("main.plist").read_bytes())
print(about["name"], about["matrix"]["shape"], "mm apart:", about["spacing"][2])
head = np.fromfile("matrix.dat", "<i2").reshape(about["matrix"]["shape"])
found = {"head": shared_noise(head)}
for name in ("lung1", "lung2"):
    image = SimpleITK.ReadImage(f"pyradiomics-3.0.1/data/{name}_image.nrrd")
    print(name, image.GetSize()[::-1], "mm apart:", image.GetSpacing()[2])
    found[name] = shared_noise(SimpleITK.GetArrayFromImage(image))
print("noise shared by slices 1, 2 and 3 apart:", found)
assert about["spacing"][2] == 1.5
assert found["head"] == [0.49, 0.06, 0.01]
assert max(found["lung1"][0], found["lung2"][0]) < 0.1
PYTHON
