"""Bad input, one row each: what is given, what comes of it, and who is named."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from demiurge.audio.v1 import audio_pb2
from demiurge.descriptor.v1.descriptor_service_pb2 import ExtractDescriptorsRequest
from demiurge.gateway.v1 import gateway_service_pb2 as pb
from demiurge.gateway.v1.gateway_service_pb2 import State
from demiurge.predictor.v1.predictor_service_pb2 import PredictDescriptorsRequest
from demiurge.query.v1.query_service_pb2 import MatchDescriptorsRequest
from demiurge.synth.v1.synth_service_pb2 import ResynthesizeAudioRequest

from services.audio.reading import read_audio
from services.cli.beforehand import check_models
from services.errors import (
    DemiurgeError,
    InvalidInputError,
    NotFoundError,
    ObjectKeyError,
    SettingsMismatchError,
    UnreadableAudioError,
    WindowTooLongError,
)
from services.runtime.settings import RuntimeSettings, load
from tests.conftest import MELGAN, PREDICTOR, RATE, UNAGAN, Stack, sound, spec
from tests.e2e.conftest import GOOD, UNREADABLE, UNUSUAL, Files

Act = Callable[[Stack, pb.RunSpec], pb.Run | None]

FRAMES = 12


def make(stack: Stack, wanted: pb.RunSpec) -> pb.Run:
    return stack.made(wanted)


def changed(**fields: Any) -> Act:
    """Makes the run with these fields of its prediction or generation changed."""

    def act(stack: Stack, wanted: pb.RunSpec) -> pb.Run:
        generation = {name: fields[name] for name in fields if name.endswith("gan_model_id")}
        if generation:
            wanted.generation.CopyFrom(spec(files=1, seconds=0.2).generation)
        for name, value in fields.items():
            part = wanted.generation if name in generation else wanted.prediction
            setattr(part, name, value)
        return stack.made(wanted)

    return act


def extracting(**settings: int) -> Act:
    def act(stack: Stack, wanted: pb.RunSpec) -> pb.Run:
        for name, value in settings.items():
            setattr(wanted.extraction, name, value)
        return stack.made(wanted)

    return act


def uploading(database: str, name: str) -> Act:
    def act(stack: Stack, _: pb.RunSpec) -> None:
        stack.upload(database, name, sound(0.1))

    return act


def naming(*files: str) -> Act:
    def act(stack: Stack, wanted: pb.RunSpec) -> pb.Run:
        wanted.prediction.files.extend(files)
        return stack.made(wanted)

    return act


def track(names: list[str], frames: int = 20) -> audio_pb2.DescriptorTrack:
    return audio_pb2.DescriptorTrack(
        feature_names=names,
        frame_count=frames,
        sample_rate_hertz=RATE,
        hop_length_samples=1024,
        source="by hand",
        values=bytes(4 * frames * len(names)),
    )


def predicting(names: list[str]) -> Act:
    def act(stack: Stack, _: pb.RunSpec) -> None:
        request = PredictDescriptorsRequest(predictor_id=PREDICTOR, window=track(names), steps=3)
        stack.call(stack.client.predictor.PredictDescriptors, request)

    return act


def matching(collection: str) -> Act:
    def act(stack: Stack, _: pb.RunSpec) -> None:
        request = MatchDescriptorsRequest(collection_id=collection, track=track(["mfcc0"]))
        stack.call(stack.client.query.MatchDescriptors, request)

    return act


def resynthesizing(key: str) -> Act:
    def act(stack: Stack, _: pb.RunSpec) -> None:
        reference = audio_pb2.ObjectRef(key=key, sha256="0" * 64)
        request = ResynthesizeAudioRequest(
            melgan_model_id=MELGAN, audio=reference, output_key="audio/copies/1.wav"
        )
        stack.call(stack.client.synth.ResynthesizeAudio, request)

    return act


@dataclass(frozen=True)
class Row:
    """What is given, and what comes of it.

    `error` is raised by the call where it is `refused`, told by the run where it `failed`; with
    neither, the run makes its piece, and leaves out the files in `skipped`. `names` are in the
    message.
    """

    what: str
    act: Act = make
    refused: type[DemiurgeError] | None = None
    failed: type[DemiurgeError] | None = None
    skipped: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    material: Files = field(default_factory=lambda: GOOD)
    prediction: Files = field(default_factory=lambda: GOOD)


ROWS = [
    *(
        Row(
            f"{what} among good sound",
            skipped=(name,),
            names=(name, why),
            material=GOOD | {name: bad},
        )
        for what, (name, bad, why) in UNREADABLE.items()
    ),
    *(
        Row(
            f"{what} among sounds to continue",
            skipped=(name,),
            names=(name, why),
            prediction=GOOD | {name: bad},
        )
        for what, (name, bad, why) in UNREADABLE.items()
    ),
    *(
        Row(
            f"{what} alone",
            failed=InvalidInputError,
            names=("the material", name, why),
            material={name: bad},
        )
        for what, (name, bad, why) in UNREADABLE.items()
    ),
    *(
        Row(f"{what}: works", material={name: content}, prediction=GOOD | {name: content})
        for what, (name, content) in UNUSUAL.items()
    ),
    Row("no material", refused=NotFoundError, names=("material", "is empty"), material={}),
    Row("nothing to continue", refused=NotFoundError, names=("prediction",), prediction={}),
    Row("a file that is not there", naming("x.wav"), refused=NotFoundError, names=("x.wav",)),
    Row("a file outside", naming("../../a.wav"), refused=ObjectKeyError, names=("../../a.wav",)),
    Row(
        "upload to ../",
        uploading("up", "../a.wav"),
        refused=InvalidInputError,
        names=("file_name",),
    ),
    Row("upload to ..", uploading("up", ".."), refused=ObjectKeyError, names=("audio/up/..",)),
    Row("upload into ..", uploading("..", "a.wav"), refused=ObjectKeyError, names=("audio/..",)),
    Row("upload over a line", uploading("up", "a\nb"), refused=ObjectKeyError, names=("a\\nb",)),
    Row(
        "upload of a long name",
        uploading("up", "ü" * 255),
        refused=ObjectKeyError,
        names=("ü" * 9,),
    ),
    Row("sound outside", resynthesizing("../a.wav"), refused=ObjectKeyError, names=("../a.wav",)),
    Row(
        "sound not there",
        resynthesizing("audio/a.wav"),
        refused=NotFoundError,
        names=("audio/a.wav",),
    ),
    Row(
        "an unknown UNAGAN",
        changed(unagan_model_id="nobody"),
        refused=NotFoundError,
        names=("nobody", UNAGAN),
    ),
    Row(
        "an unknown MelGAN",
        changed(melgan_model_id="nobody"),
        refused=NotFoundError,
        names=("nobody", MELGAN),
    ),
    Row(
        "a step that was not stored",
        changed(melgan_model_id=f"{MELGAN}@9"),
        refused=NotFoundError,
        names=(f"{MELGAN}@9",),
    ),
    Row(
        "a MelGAN in the place of the UNAGAN",
        changed(unagan_model_id=MELGAN),
        refused=NotFoundError,
        names=(f"no unagan model '{MELGAN}'", UNAGAN),
    ),
    Row(
        "an unknown predictor",
        changed(predictor_id="nobody"),
        refused=NotFoundError,
        names=("nobody", PREDICTOR),
    ),
    Row(
        "a model id that leaves",
        changed(predictor_id="../x"),
        refused=InvalidInputError,
        names=("../x",),
    ),
    Row("an unknown collection", matching("nowhere"), refused=NotFoundError, names=("nowhere",)),
    Row(
        "a window longer than the file",
        failed=WindowTooLongError,
        names=("short.wav", "5 frames", "looks at 10"),
        prediction={"short.wav": sound(0.1)},
    ),
    Row(
        "a window longer than one of the files",
        skipped=("short.wav",),
        names=("short.wav", "looks at 10"),
        prediction=GOOD | {"short.wav": sound(0.1)},
    ),
    Row(
        "features that the model does not know",
        predicting(["mfcc0", "centroid"]),
        refused=SettingsMismatchError,
        names=("by hand", "centroid"),
    ),
    Row(
        "a model of other features",
        changed(predictor_id="other-features"),
        failed=SettingsMismatchError,
        names=("good.wav", "centroid"),
    ),
    *(
        Row(
            f"models that do not agree in {setting}",
            changed(unagan_model_id=f"other-{setting}"),
            refused=SettingsMismatchError,
            names=(f"other-{setting}", MELGAN, words),
        )
        for setting, words in (
            ("sample_rate_hertz", "sample_rate_hertz is 22050 in the one"),
            ("hop_length", "hop_length_samples is 32 in the one"),
            ("n_mels", "mel_channels is 20 in the one"),
        )
    ),
    Row(
        "models that do not agree in their mels",
        changed(unagan_model_id="other-n_fft"),
        failed=SettingsMismatchError,
        names=("other-n_fft@1", MELGAN, "n_fft"),
    ),
    Row(
        "another rate than the predictor's",
        extracting(sample_rate_hertz=22050),
        refused=SettingsMismatchError,
        names=(PREDICTOR, "sample_rate_hertz 44100", "22050"),
    ),
    Row(
        "another hop than the predictor's",
        extracting(hop_length_samples=512),
        refused=SettingsMismatchError,
        names=(PREDICTOR, "hop_length_samples 1024", "512"),
    ),
    Row(
        "a rate that cannot be",
        extracting(sample_rate_hertz=-1),
        refused=InvalidInputError,
        names=("spec.extraction.sample_rate_hertz",),
    ),
]


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row.what for row in ROWS])
def test_bad_input_is_named_the_rest_goes_on_and_nothing_is_half_written(
    stack: Stack, number: int
) -> None:
    row = ROWS[number]
    material, prediction = f"material-{number}", f"prediction-{number}"
    for database, files in ((material, row.material), (prediction, row.prediction)):
        for name, content in files.items():
            stack.upload(database, name, content)
    wanted = spec(database=material, prediction=prediction, frames=FRAMES)
    before = stack.files()

    if row.refused:
        with pytest.raises(DemiurgeError) as caught:
            row.act(stack, wanted)
        assert type(caught.value) is row.refused
        told = caught.value.message
        assert stack.files() == before
    else:
        run = row.act(stack, wanted)
        assert run is not None
        told = " ".join(item.reason for item in run.skipped) + run.failure.message
        assert {item.key.rpartition("/")[2] for item in run.skipped} == set(row.skipped)
        assert run.state == (State.STATE_FAILED if row.failed else State.STATE_SUCCEEDED), told
        assert run.failure.reason == (row.failed.reason if row.failed else "")
        check_that_all_is_whole(stack, set(stack.files()) - set(before), run)

    assert [name for name in row.names if name not in told] == []


def check_that_all_is_whole(stack: Stack, written: set[str], run: pb.Run) -> None:
    """Every new object can be read, and a piece is there only with all that belongs to it."""
    for key in written:
        content = stack.store.read(key)
        if key.endswith(".json"):
            orjson.loads(content)
        elif key.endswith(".wav"):
            read_audio(io.BytesIO(content), name=key)
    rendered = {key.rpartition("/")[2] for key in written if key.startswith("renders/")}
    succeeded = run.state == State.STATE_SUCCEEDED
    assert rendered == ({"piece.wav", "edit_list.json", "spectrogram.png"} if succeeded else set())
    if succeeded:
        assert run.result.sample_count == FRAMES * 1024


def test_what_is_wrong_with_a_sound_reaches_who_asks_for_its_description(stack: Stack) -> None:
    for name, content, why in UNREADABLE.values():
        stored = stack.upload("each", name, content)
        request = ExtractDescriptorsRequest(audio=stored)
        with pytest.raises(UnreadableAudioError, match=why) as caught:
            stack.call(stack.client.descriptor.ExtractDescriptors, request)
        assert caught.value.culprit == name


@pytest.mark.parametrize("noun", ["gateway", "synth", "predictor"])
def test_services_elsewhere_are_asked_for_their_models_before_anything_is_done(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, noun: str
) -> None:
    monkeypatch.setenv(f"DEMIURGE_{noun.upper()}_ADDRESS", stack.address)
    runtime = load(RuntimeSettings)
    known = {"predictor": PREDICTOR} if noun == "predictor" else {"unagan": UNAGAN}
    check_models(known, runtime)
    for family, model_id in known.items():
        with pytest.raises(NotFoundError, match=f"^--{family}: .*'nope'; .*{model_id}"):
            check_models({family: "nope"}, runtime)
