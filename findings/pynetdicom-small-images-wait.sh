#!/usr/bin/env bash
# Bet: over one association on localhost, a CT image of 64x64 pixels is stored no later than one of 256x256, which is 16
# times as large.
#
# Seen: pynetdicom 3.0.4 on Linux takes about nine times as long for the smaller: 49 ms against 5. It writes the command and
# the image one after the other and leaves Nagle's algorithm on. So the image, which does not fill a segment, waits until
# the command is acknowledged, and Linux delays that by 40 ms. Images of 2 to 50 KiB wait, those of 74 KiB and more do
# not, for loopback has segments of 64 KiB. With TCP_NODELAY, which a handler of EVT_CONN_OPEN can set on the sender's
# socket, none waits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq pynetdicom==3.0.4 pydicom==3.0.2
cat > store.py <<'PYTHON'
"""The median time of storing an image, by its size, as pynetdicom comes and with TCP_NODELAY."""
import platform
import socket
import statistics
import time

import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

IMAGES = 15


def image(pixels):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.Rows = made.Columns = pixels
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 1
    made.PixelData = bytes(2 * pixels * pixels)
    return made


def without_delay(event):
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def milliseconds(pixels, handlers):
    archive, sender, times = AE(), AE(), []
    archive.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
    association = sender.associate("127.0.0.1", server.server_address[1], evt_handlers=handlers)
    sent = image(pixels)
    for _ in range(IMAGES):
        start = time.perf_counter()
        assert association.send_c_store(sent).Status == 0
        times.append(1e3 * (time.perf_counter() - start))
    association.release()
    server.shutdown()
    return statistics.median(times)


print(f"pynetdicom {pynetdicom.__version__}, pydicom {pydicom.__version__}, {platform.system()}")
as_it_comes = {pixels: milliseconds(pixels, []) for pixels in (64, 256)}
without = {pixels: milliseconds(pixels, [(evt.EVT_CONN_OPEN, without_delay)]) for pixels in (64, 256)}
print("milliseconds an image, by pixels a side:", as_it_comes, "and with TCP_NODELAY:", without)
assert as_it_comes[64] > 3 * as_it_comes[256], "the small image does not wait"
assert as_it_comes[64] > 35, "not for a delayed acknowledgement"
assert without[64] < as_it_comes[64] / 3, "TCP_NODELAY changes nothing"
PYTHON
venv/bin/python store.py
