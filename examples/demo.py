"""The demo: from the bundled recordings to a piece, and what can be measured of it.

    python examples/demo.py [FOLDER]

The GANs are those of examples/models; the predictor is trained first, which takes a minute. A
second call finds it and takes seconds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from services.audio.reading import Sound, read_audio
from services.audio.resampling import resample, to_mono
from services.descriptor.mfcc import ExtractionSettings, extract

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
MODELS = HERE / "models"
SETTINGS = ExtractionSettings()
SECONDS = 20
SILENCE_DECIBELS = -60.0
COEFFICIENTS = 13
OWN = {"generated database", "recorded corpus"}


def make(folder: Path) -> None:
    """Runs the pipeline as a composer would."""
    environment = os.environ | {"DEMIURGE_HOME": str(folder)}

    def demiurge(*arguments: str | Path) -> None:
        command = Path(sys.executable).with_name("demiurge")
        # All arguments are ours.
        done = subprocess.run([command, *arguments], env=environment, check=False)  # noqa: S603
        if done.returncode:
            # It has said why.
            sys.exit(done.returncode)

    models: list[str] = []
    for path in sorted(MODELS.glob("*/*/best.json")):
        family, model = path.parts[-3:-1]
        demiurge("import", path.parent)
        models += [f"--{family}", model]
    if not models:
        sys.exit(f"{MODELS} holds no models: take examples/ as it is in the repository")
    demiurge(
        *("run", *models, "--prediction", CORPUS / "prediction"),
        *("--duration", str(SECONDS), "--out", folder / "piece"),
    )


def mono(path: Path) -> np.ndarray:
    """A sound as the descriptor service hears it."""
    sound: Sound = read_audio(path, name=path.name)
    return resample(
        to_mono(sound.samples)[:, None], sound.sample_rate_hertz, SETTINGS.sample_rate_hertz
    )[:, 0]


def timbre(sounds: list[np.ndarray]) -> np.ndarray:
    """Mean and spread over all frames of the first 13 MFCCs."""
    frames = np.concatenate([extract(sound, SETTINGS)[0][:, :COEFFICIENTS] for sound in sounds])
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


def silence(samples: np.ndarray) -> float:
    """Share of hops whose level is below -60 dB of full scale."""
    hops = samples[: len(samples) // SETTINGS.hop_length * SETTINGS.hop_length]
    level = np.sqrt(np.square(hops.reshape(-1, SETTINGS.hop_length)).mean(axis=1))
    return float((level < 10 ** (SILENCE_DECIBELS / 20)).mean())


def figures(folder: Path) -> dict[str, Any]:
    """What the piece is like."""
    edits = json.loads((folder / "piece" / "edit_list.json").read_bytes())
    piece = read_audio(folder / "piece" / "piece.wav", name="piece.wav")
    samples = to_mono(piece.samples)
    ours = timbre([samples])
    noise = np.random.default_rng(0).standard_normal(SECONDS * SETTINGS.sample_rate_hertz)
    others = {
        "generated database": sorted((folder / "store" / "audio").glob("generated-*/*.wav")),
        "recorded corpus": sorted((CORPUS / "recorded").glob("*.flac")),
        "prediction corpus": sorted((CORPUS / "prediction").glob("*.flac")),
    }
    distances = {
        name: float(np.linalg.norm(timbre([mono(path) for path in paths]) - ours))
        for name, paths in others.items()
    }
    level = np.float32(np.sqrt(np.square(samples).mean()))
    distances["white noise"] = float(
        np.linalg.norm(timbre([noise.astype(np.float32) * level]) - ours)
    )
    return {
        "samples": piece.frame_count,
        "hops": piece.frame_count / SETTINGS.hop_length,
        "seconds": piece.frame_count / piece.sample_rate_hertz,
        "peak": float(np.abs(piece.samples).max()),
        "share of silence": silence(samples),
        "source files": len({segment["source"] for segment in edits["segments"]}),
        "timbre distance to": distances,
    }


def main() -> None:
    """Makes the piece and prints its figures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    make(folder)
    found = figures(folder)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    distances = found["timbre distance to"]
    if found["samples"] % SETTINGS.hop_length or min(distances, key=distances.get) not in OWN:
        sys.exit("the piece is not of whole hops, or nearer to another corpus than to its own")


if __name__ == "__main__":
    main()
