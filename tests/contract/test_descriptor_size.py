"""What it costs to describe a long sound: time, and no more memory than a short one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 48_000

# The whole service but for the wire: describes twice, the second time from what was stored.
CHILD = r"""
import asyncio, re, sys
from pathlib import Path
from demiurge.descriptor.v1 import descriptor_service_pb2 as pb
from services.descriptor.servicer import DescriptorServicer
from services.descriptor.settings import DescriptorSettings
from services.runtime.messages import ref_to_message
from services.runtime.metrics import Metrics
from services.runtime.object_store.folder import FolderStore

async def main(root):
    store = FolderStore(Path(root))
    metrics = Metrics().queue("descriptor")
    service = DescriptorServicer(DescriptorSettings(workers=1), store, metrics)
    await service.warm_up()
    audio = ref_to_message(store.stat("audio/long/long.wav"))
    request = pb.ExtractDescriptorsRequest(audio=audio)
    first = await service.ExtractDescriptors(request, None)
    assert await service.ExtractDescriptors(request, None) == first
    await service.shut_down()
    status = Path("/proc/self/status").read_text()
    print(first.track.frame_count, re.search(r"VmHWM:\s+(\d+) kB", status)[1])

asyncio.run(main(sys.argv[1]))
"""


def peak_mebibytes(folder: Path, minutes: int) -> float:
    """Largest resident memory of a process that describes a stereo sound of so many minutes."""
    sound = folder / "audio/long/long.wav"
    sound.parent.mkdir(parents=True, exist_ok=True)
    minute = np.random.default_rng(0).normal(0, 0.1, (60 * RATE, 2)).astype(np.float32)
    with soundfile.SoundFile(sound, "w", RATE, 2, "PCM_16", format="WAV") as file:
        for number in range(minutes):
            file.write(minute * (1 + number % 5) / 5)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], capture_output=True, text=True, check=False
    )
    sound.unlink()
    assert not done.returncode, done.stderr
    frames, kibibytes = map(int, done.stdout.split())
    assert frames == 1 + minutes * 60 * 44_100 // 1024
    return kibibytes / 1024


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """librosa's first use on a machine compiles, which takes memory, and keeps what it made."""
    peak_mebibytes(tmp_path_factory.mktemp("first"), 1)


@needs_linux
@pytest.mark.usefixtures("warm")
def test_ten_minutes_need_no_more_memory_than_one(tmp_path: Path) -> None:
    # Decoded, the nine minutes between them are 198 MiB.
    assert peak_mebibytes(tmp_path, 10) < peak_mebibytes(tmp_path, 1) + 24


@needs_linux
@pytest.mark.usefixtures("warm")
@pytest.mark.slow
def test_two_hours_need_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    peaks = [peak_mebibytes(tmp_path, minutes) for minutes in (10, 60, 120)]

    assert max(peaks) < min(peaks) + 16
