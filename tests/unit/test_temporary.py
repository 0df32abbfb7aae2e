"""Temporary files: a full disk is said to be, and a killed process leaves none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.errors import StorageFullError
from services.temporary import temporary_file, temporary_room
from tests.full_disk import files_of_at_most

# Each says so when it has written all that it writes, and then holds still.
HOLDING = """
import sys, threading, time
from pathlib import Path
from services.runtime.object_store.folder import FolderStore

class Holding(FolderStore):
    def put(self, key, content):
        hold()

def hold():
    print("now", flush=True)
    time.sleep(600)

store = Holding(Path(sys.argv[1]))
"""
UPLOAD = """
from services.gateway.uploads import Upload

places = threading.BoundedSemaphore(1)
with Upload(store, "audio/a/b.wav", "0" * 64, max_bytes=1 << 30, places=places) as upload:
    upload.write(bytes(1 << 24))
    hold()
"""
RENDER = """
from tests.contract.playing import many
from demiurge.playback.v1 import playback_service_pb2 as pb
from services.playback.servicer import PlaybackServicer
from services.playback.settings import PlaybackSettings

request = pb.RenderAudioRequest(
    matches=many(FolderStore(Path(sys.argv[1])), 2), output_prefix="renders/r"
)
PlaybackServicer(PlaybackSettings(), store)._render(request, lambda: None)
"""
DESCRIBE = """
from demiurge.audio.v1 import audio_pb2
from services.descriptor.mfcc import ExtractionSettings
from services.descriptor.servicer import DescriptorServicer
from services.descriptor.settings import DescriptorSettings
from services.runtime.metrics import Metrics
from tests.contract.playing import put, sound

ref = put(FolderStore(Path(sys.argv[1])), "audio/a/b.wav", sound(hops=40))
servicer = DescriptorServicer(DescriptorSettings(), store, Metrics().queue("descriptor"))
servicer._describe(ref, ExtractionSettings(), lambda: None)
"""


@pytest.mark.parametrize("work", [UPLOAD, RENDER, DESCRIBE], ids=["upload", "render", "describe"])
def test_a_process_that_is_killed_leaves_no_temporary_file(work: str, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING + work, str(tmp_path / "store")],
        env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"now\n"
        finally:
            process.kill()
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_named_with_what_had_no_room_on_it() -> None:
    def fill() -> None:
        with temporary_file("a.wav") as file, temporary_room("a.wav"):
            file.write(bytes(2000))
            file.flush()

    with (
        files_of_at_most(1000),
        pytest.raises(StorageFullError, match=r"a\.wav: no room in .*TMPDIR") as caught,
    ):
        fill()
    assert caught.value.culprit == "a.wav"


def test_a_disk_that_is_full_to_the_last_byte_is_named_alike() -> None:
    with (
        pytest.raises(StorageFullError, match=r"temporary files: no room in .*TMPDIR") as caught,
        temporary_room(),
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"x")
    assert caught.value.culprit == tempfile.gettempdir()


def test_other_errors_of_files_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_room("a.wav"):
        (tmp_path / "nothing").open("rb")
