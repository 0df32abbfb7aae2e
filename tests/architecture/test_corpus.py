"""The example recordings are what ORIGIN.md says, and fit for what they are there for."""

import hashlib
import re
from pathlib import Path

import soundfile

CORPUS = Path(__file__).parents[2] / "examples/corpus"
MOST_BYTES = 8_000_000
# A window of 40 frames at hop 1024 and 44.1 kHz, twice.
SHORTEST_SECONDS = 2 * 40 * 1024 / 44_100


def recordings(database: str) -> dict[str, Path]:
    return {path.name: path for path in (CORPUS / database).glob("*.flac")}


def test_every_recording_has_its_origin_and_its_checksum() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \| [\d.]+ s \| .+, \d{4} \| <http\S+> \| `([0-9a-f]{64})` \|$",
        (CORPUS / "ORIGIN.md").read_text(),
        re.MULTILINE,
    )
    files = recordings("recorded") | recordings("prediction")
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert dict(rows) == found
    assert len(rows) == len(found)


def test_no_recording_is_in_both_databases() -> None:
    assert not recordings("recorded").keys() & recordings("prediction").keys()


def test_the_recordings_stay_small() -> None:
    size = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    assert 0 < size <= MOST_BYTES


def test_every_recording_to_predict_from_is_long_enough() -> None:
    for path in recordings("prediction").values():
        assert soundfile.info(path).duration >= SHORTEST_SECONDS, path.name
