"""All services in one process, over a store of the test's own, with tiny models that were trained.

Heavy packages are imported by the fixtures that need them, so that the other suites start at once.
"""

# ruff: noqa: PLC0415

import hashlib
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from demiurge.audio.v1.audio_pb2 import ObjectRef
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec, UploadAudioRequest

    from services.cli.connection import Client
    from services.runtime.object_store.port import ObjectStore
    from tests.servers.seaweed import Seaweed

UNAGAN, MELGAN, PREDICTOR = "singer", "voice", "follower"
WINDOW_FRAMES = 10
RATE = 44_100


@dataclass(frozen=True)
class Stack:
    """A client of all services, and the store behind them. Failed calls raise our own errors."""

    client: "Client"
    store: "ObjectStore"
    folder: Path
    address: str

    def upload(self, database: str, name: str, content: bytes) -> "ObjectRef":
        """Stores one file through the gateway."""
        return self.send(upload_messages(database, name, content))

    def send(self, messages: "list[UploadAudioRequest]") -> "ObjectRef":
        """UploadAudio of just these messages."""
        return self.call(self.client.pipeline.UploadAudio, iter(messages)).audio

    def call(self, method: Callable[..., Any], request: object, **options: object) -> Any:
        """One call."""
        from services.runtime.status import remote_errors

        with remote_errors():
            return method(request, **options)

    def create(self, spec: "RunSpec", **options: object) -> "Run":
        """CreateRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest

        return self.call(self.client.pipeline.CreateRun, CreateRunRequest(spec=spec), **options).run

    def get(self, run_id: str) -> "Run":
        """GetRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest

        return self.call(self.client.pipeline.GetRun, GetRunRequest(run_id=run_id)).run

    def cancel(self, run_id: str) -> "Run":
        """CancelRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import CancelRunRequest

        return self.call(self.client.pipeline.CancelRun, CancelRunRequest(run_id=run_id)).run

    def watch(self, run_id: str) -> "Iterator[Run]":
        """WatchRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import WatchRunRequest

        for message in self.client.pipeline.WatchRun(WatchRunRequest(run_id=run_id)):
            yield message.run

    def ended(self, run: "Run") -> "Run":
        """The run as WatchRun last shows it."""
        *_, last = self.watch(run.id)
        return last

    def made(self, spec: "RunSpec") -> "Run":
        """The run of `spec`, ended."""
        return self.ended(self.create(spec))

    def piece(self, spec: "RunSpec") -> bytes:
        """The bytes of the piece that `spec` makes."""
        run = self.made(spec)
        assert not run.failure.message, run.failure.message
        return self.store.read(run.result.audio.key, sha256=run.result.audio.sha256)

    def files(self) -> dict[str, int]:
        """Every file of a store in the folder, unfinished ones too: when it was written."""
        root = self.folder / "store"
        return {
            path.relative_to(root).as_posix(): path.stat().st_mtime_ns
            for path in root.rglob("*")
            if path.is_file()
        }


OpenStack = Callable[..., AbstractContextManager[Stack]]


def upload_messages(database: str, name: str, content: bytes) -> "list[UploadAudioRequest]":
    """What a client sends to store a file."""
    from demiurge.gateway.v1.gateway_service_pb2 import UploadAudioHeader, UploadAudioRequest

    header = UploadAudioHeader(
        database=database, file_name=name, sha256=hashlib.sha256(content).hexdigest()
    )
    parts = [content[start : start + 65536] for start in range(0, len(content), 65536)]
    return [UploadAudioRequest(header=header), *(UploadAudioRequest(data=part) for part in parts)]


def samples(seconds: float, seed: int) -> np.ndarray:
    """A gliding tone in a little noise, mono at 44.1 kHz: another for every seed."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    glide = np.sin(2 * np.pi * (150 + 60 * seed + 200 * time) * time)
    return (0.4 * glide + 0.05 * random.standard_normal(time.size)).astype(np.float32)


def sound(seconds: float = 1.0, seed: int = 0) -> bytes:
    """`samples` as a WAV file."""
    from services.audio.writing import Encoding, write_audio

    content = io.BytesIO()
    write_audio(content, samples(seconds, seed)[:, None], RATE, Encoding.WAV_PCM16)
    return content.getvalue()


def spec(
    *,
    database: str = "",
    prediction: str = "prediction",
    predictor: str = PREDICTOR,
    frames: int = 30,
    files: int = 3,
    seconds: float = 0.5,
    seed: int = 0,
) -> "RunSpec":
    """A run that generates its material, or takes it from `database`."""
    from demiurge.gateway.v1.gateway_service_pb2 import Prediction, RunSpec
    from google.protobuf.duration_pb2 import Duration

    wanted = RunSpec(
        prediction=Prediction(database=prediction, predictor_id=predictor, frame_count=frames),
        seed=seed,
    )
    if database:
        wanted.database = database
    else:
        wanted.generation.unagan_model_id = UNAGAN
        wanted.generation.melgan_model_id = MELGAN
        wanted.generation.file_count = files
        wanted.generation.duration.CopyFrom(Duration(nanos=round(seconds * 1e9)))
    return wanted


def pytest_configure() -> None:
    """What the commands that tests start take over from this process."""
    # One thread for torch: the tests' networks are too small for more.
    os.environ["OMP_NUM_THREADS"] = "1"
    # A shell's background job ignores Ctrl-C, and so would every command that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a store with a narrow model of each family, trained for two steps."""
    from services.audio.track import DescriptorTrack
    from services.descriptor import mfcc
    from services.predictor.training.settings import PredictorTraining
    from services.predictor.training.trainer import PredictorTrainer
    from services.runtime.model_store import ModelStore
    from services.runtime.object_store.folder import FolderStore
    from services.synth.corpus.clips import Clip
    from services.synth.mel import MelSettings
    from services.synth.melgan.discriminator import DiscriminatorSettings
    from services.synth.melgan.generator import MelGanSettings
    from services.synth.melgan.training import MelGanTrainer
    from services.synth.melgan.training_settings import MelGanTraining
    from services.synth.unagan.generator import UnaganSettings
    from services.synth.unagan.training import UnaganTrainer
    from services.synth.unagan.training_settings import UnaganTraining

    mel = MelSettings(sample_rate_hertz=RATE, n_fft=256, hop_length=64, n_mels=16, win_length=256)
    clips = [Clip(f"{seed}.wav", samples(1.0, seed)) for seed in range(2)]
    values, _ = mfcc.extract(samples(2.0, 9), mfcc.ExtractionSettings())
    track = DescriptorTrack(mfcc.FEATURE_NAMES, values, RATE, 1024, "9.wav")
    melgan = MelGanTraining(
        generator=MelGanSettings(variant="gru", ngf=2, ratios=(8, 8), mel=mel),
        discriminator=DiscriminatorSettings(ndf=2, max_channels=8),
        batch_size=2,
        crop_samples=2048,
    )
    unagan = UnaganTraining(
        networks=UnaganSettings(z_dim=4, z_scale_factors=(2, 2), middle_dim=8, mel=mel),
        segment_seconds=0.1,
        batch_size=2,
    )
    predictor = PredictorTraining(window_size=WINDOW_FRAMES, hidden_size=8, num_layers=1)
    trainers = {
        ("melgan", MELGAN): MelGanTrainer(melgan, clips, device="cpu", seed=1),
        ("unagan", UNAGAN): UnaganTrainer(unagan, clips, device="cpu", seed=1),
        ("predictor", PREDICTOR): PredictorTrainer(predictor, [track], device="cpu", seed=1),
    }
    root = tmp_path_factory.mktemp("trained")
    models = ModelStore(FolderStore(root))
    for (family, name), trainer in trainers.items():
        for _ in range(2):
            trainer.step()
        weights, config = trainer.weights(), trainer.config()
        models.save(family, name, 2, weights=weights, config=config, card="", best=True)
    return root


def openssl(folder: Path, *arguments: str) -> None:
    """Runs openssl in that folder."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """An authority in a folder, whose certificates the tests make: NAME.pem and NAME.key."""

    NEW_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            pytest.skip("openssl is not installed")
        self.folder = folder
        openssl(
            *(folder, *self.NEW_KEY, "-x509", "-subj", "/CN=ca"),
            *("-keyout", "ca.key", "-out", "ca.pem"),
        )

    def issue(
        self, name: str, *, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 30
    ) -> None:
        """A certificate for these names, that has expired where `days` is negative."""
        (self.folder / "names").write_text(f"subjectAltName={names}")
        key, request = f"{name}.key", f"{name}.csr"
        openssl(self.folder, *self.NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl(
            self.folder,
            *("x509", "-req", "-in", request, "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "names", "-days", str(days), "-out", f"{name}.pem"),
        )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """own.pem and own.key, for loopback, of the authority ca.pem."""
    folder = tmp_path_factory.mktemp("tls")
    Authority(folder).issue("own")
    return folder


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Seaweed]":
    """A real S3 server. Whoever stops or pauses it starts or resumes it again."""
    from tests.servers.seaweed import Seaweed

    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def open_stack(trained_models: Path) -> OpenStack:
    """Opens all services over a folder, which need not be new; keywords are runtime settings.

    Objects are in the folder, too, unless `store` names another place, as in
    `open_stack(folder, store=seaweed.location(), environment=seaweed.environment)`.
    """
    from services.cli.composition import build, open_ground
    from services.cli.connection import client_of
    from services.runtime.channels import open_blocking_channel
    from services.runtime.embedding import embedded, embedded_settings
    from services.runtime.object_store.folder import FolderStore
    from services.runtime.settings import NOUNS, RuntimeSettings

    models = FolderStore(trained_models)

    @contextmanager
    def opened(
        folder: Path, *, environment: Mapping[str, str] | None = None, **settings: object
    ) -> Iterator[Stack]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (environment or {}).items():
                patch.setenv(name, value)
            patch.setenv("DEMIURGE_QUERY_FOLDER", str(folder / "query"))
            settings.setdefault("store", str(folder / "store"))
            runtime = embedded_settings(RuntimeSettings(**settings))
            ground = open_ground(runtime)
            for key in models.keys(""):
                if not ground.store.exists(key):
                    ground.store.put(key, models.read(key))
            own = [noun for noun in NOUNS if not runtime.address_of(noun)]
            with embedded(
                lambda: [build(noun, ground) for noun in own], runtime, ground.metrics
            ) as server:
                ground.own_address = f"127.0.0.1:{server.port}"
                with open_blocking_channel(ground.own_address, runtime) as channel:
                    client = client_of(dict.fromkeys(NOUNS, channel))
                    yield Stack(client, ground.store, folder, ground.own_address)

    return opened


@pytest.fixture
def stack(open_stack: OpenStack, tmp_path: Path) -> Iterator[Stack]:
    """All services over an empty store but for the models."""
    with open_stack(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the tests of a module, with two sounds to continue and three of material."""
    with open_stack(tmp_path_factory.mktemp("shared")) as opened:
        for seed in (1, 2):
            opened.upload("prediction", f"{seed}.wav", sound(1.0, seed))
        for seed in (3, 4, 5):
            opened.upload("material", f"{seed}.wav", sound(0.7, seed))
        yield opened
