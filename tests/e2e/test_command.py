"""The command as a composer uses it: real processes and recordings, models hardly trained."""

import json
import os
import pty
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from services.cli.main import VERBS, app
from tests.e2e.workspace import COMMAND, Workspace, furnish

GOLDEN = Path(__file__).parents[1] / "golden"
HOP = 1024
TRAININGS = {
    "melgan": ("--recorded", "recorded"),
    "unagan": ("--audio_db_dir", "recorded"),
    "predictor": (
        *("--data_path", "prediction", "--selected_model", "LSTMEncoderDecoderModel"),
        *("--window_size", "10", "--forecast-size", "4", "--dim_pos_encoding", "6"),
    ),
}
OPTIONS = {
    "run": ("--recorded", "--prediction", "--duration", "--seed", "--direct", "--out"),
    "train melgan": ("--recorded", "--preset", "--steps", "--device"),
    "train unagan": ("--recorded", "--batch-size", "--learning-rate"),
    "train predictor": ("--selected-model", "--window-size", "--forecast-size"),
    "evaluate melgan": ("--recorded", "--database"),
    "evaluate unagan": ("--melgan", "--recorded"),
    "export": ("--out", "--half"),
    "generate": ("--unagan", "--melgan", "--files", "--duration", "--seed"),
    "extract": ("--sample-rate", "--hop-length", "--out"),
    "index": ("--collection", "--metric", "--scaling"),
    "predict": ("--predictor", "--steps", "--temperature"),
    "match": ("--collection", "--neighbors", "--approximate"),
    "render": ("--crossfade", "--placement", "--encoding"),
    "import": ("--checkpoint", "--id", "--rollout"),
    "runs fetch": ("--out",),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return furnish(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def models(work: Workspace) -> Mapping[str, str]:
    """A model of each family, trained by the command for two steps."""

    def train(family: str) -> str:
        return work.output("train", family, *TRAININGS[family], "--steps", "2")

    with ThreadPoolExecutor() as pool:
        return dict(zip(TRAININGS, pool.map(train, TRAININGS), strict=True))


@pytest.fixture(scope="module")
def served(work: Workspace) -> Iterator[Workspace]:
    """The same workspace while `demiurge up` runs, so that each command takes half a second."""
    with work.up():
        yield work


@pytest.mark.parametrize("verb", sorted({*VERBS, *OPTIONS}))
def test_help_names_the_options_in_plain_words(verb: str) -> None:
    shown = CliRunner().invoke(app, [*verb.split(), "--help"], prog_name="demiurge")
    assert shown.exit_code == 0
    text = shown.output
    assert text.startswith(f"Usage: demiurge {verb}")
    assert max(map(len, text.splitlines())) <= 80
    missing = [
        option for option in OPTIONS.get(verb, ()) if not re.search(rf"{option}\b[^.]*\.", text)
    ]
    assert not missing


def test_a_misspelt_option_is_named(work: Workspace) -> None:
    done = work.run("run", "--recoded", "x")
    assert done.returncode == 2
    assert "--recoded" in done.stderr
    assert "--recorded" in done.stderr


def test_a_training_leaves_a_model_with_a_card_and_its_course(
    work: Workspace, models: Mapping[str, str]
) -> None:
    for family, version in models.items():
        name, step = re.fullmatch(r"([a-z0-9]{8})@([12])", version).groups()  # type: ignore[union-attr]
        card = (work.home / "store" / "models" / family / name / step / "card.md").read_text()
        assert card.startswith(f"# {family} {name}, step {step}\n")
        assert f"{step} of 2 steps" in card
        assert "| validation/" in card
        assert list((work.home / "wandb").rglob(f"offline-run-*-{name}/run-{name}.wandb"))


def test_the_same_order_again_finds_the_model(work: Workspace, models: Mapping[str, str]) -> None:
    done = work.run("train", "predictor", *TRAININGS["predictor"], "--steps", "2")
    assert done.stdout.strip() == models["predictor"]
    assert "trained on the same recordings before" in done.stderr


@pytest.fixture(scope="module")
def call(models: Mapping[str, str]) -> tuple[str, ...]:
    """One command from recordings to a piece, but for its folder."""
    return (
        *("run", "--recorded", "recorded", "--prediction", "prediction", "--duration", "1"),
        *("--files", "2", "--file_duration", "0.5", *chosen(models), "--out"),
    )


def test_one_command_makes_a_piece(work: Workspace, call: tuple[str, ...]) -> None:
    first = work.run(*call, "first")
    assert first.returncode == 0, first.stderr
    piece, rate = soundfile.read(work.folder / "first" / "piece.wav")
    assert rate == 44_100
    assert len(piece) == 44 * HOP
    edits = json.loads((work.folder / "first" / "edit_list.json").read_bytes())
    assert {segment["source"].split("/")[-1] for segment in edits["segments"]} <= {
        path.name for path in (work.home / "store" / "audio").glob("generated-*/*.wav")
    }
    assert (work.folder / "first" / "spectrogram.png").read_bytes().startswith(b"\x89PNG")
    assert "\x1b" not in first.stderr
    assert "\r" not in first.stderr
    assert not work.leftovers()
    assert not work.notice.exists()


def test_the_same_command_makes_the_same_piece(served: Workspace, call: tuple[str, ...]) -> None:
    for made in ("audio", "descriptors", "markers", "renders", "runs"):
        shutil.rmtree(served.home / "store" / made, ignore_errors=True)
    served.output(*call, "again")
    for name in ("piece.wav", "edit_list.json", "spectrogram.png"):
        again = (served.folder / "again" / name).read_bytes()
        assert again == (served.folder / "first" / name).read_bytes()


def test_a_piece_can_be_made_of_the_recordings_themselves(
    served: Workspace, models: Mapping[str, str]
) -> None:
    served.output(
        *("run", "--recorded", "recorded", "--direct", "--prediction", "prediction"),
        *("--predictor", models["predictor"], "--duration", "0.5", "--out", "direct"),
    )
    edits = json.loads((served.folder / "direct" / "edit_list.json").read_bytes())
    names = {segment["source"].split("/")[-1] for segment in edits["segments"]}
    assert names <= {"chœur, été.wav", "bells - bell 1.WAV", "bells - slide.wav"}


def test_the_steps_one_by_one_lead_to_a_piece_of_whole_hops(
    served: Workspace, models: Mapping[str, str]
) -> None:
    folder = served.folder
    served.output(
        *("generate", "--unagan", models["unagan"], "--melgan", models["melgan"]),
        *("--files", "2", "--duration", "0.5", "--seed", "7", "--out", "generated"),
    )
    assert [path.name for path in sorted((folder / "generated").iterdir())] == [
        "seed-7-0.5s.wav",
        "seed-8-0.5s.wav",
    ]
    said = served.output("index", "generated", "--collection", "songs", "--metric", "manhattan")
    assert re.fullmatch(r"songs: \d+ frames of 2 sounds", said)
    served.output("extract", "prediction", "--out", "descriptors")
    predicted = served.output(
        *("predict", "descriptors/tabla.wav.json", "--predictor", models["predictor"]),
        *("--steps", "20", "--out", "predicted.json"),
    )
    assert len(json.loads((folder / predicted).read_bytes())["mfcc38"]) == 20
    matched = served.output("match", predicted, "--collection", "songs", "--out", "m.json")
    served.output("render", matched, "--out", "rendered", "--encoding", "flac")
    piece = soundfile.info(str(folder / "rendered" / "piece.flac"))
    assert piece.frames == 20 * HOP


def test_runs_are_listed_shown_fetched_and_deleted(
    served: Workspace, models: Mapping[str, str]
) -> None:
    call = ("run", "--prediction", "prediction", "--duration", "0.3", *chosen(models), "--files")
    made = served.run(*call, "1", "--file-duration", "0.4", "--out", "made")
    run_id = re.search(r"run-\w+", made.stderr).group()  # type: ignore[union-attr]
    assert run_id in served.output("runs").splitlines()[1]
    shown = json.loads(served.output("runs", "show", run_id))
    assert shown["state"] == "STATE_SUCCEEDED"
    served.output("runs", "fetch", run_id, "--out", "fetched")
    fetched = (served.folder / "fetched" / "piece.wav").read_bytes()
    assert fetched == (served.folder / "made" / "piece.wav").read_bytes()
    assert served.output("runs", "delete", run_id) == f"{run_id}: deleted"
    assert run_id not in served.output("runs")


def test_models_are_listed_with_what_must_agree(
    served: Workspace, models: Mapping[str, str]
) -> None:
    listed = served.output("models")
    for version in models.values():
        assert version.partition("@")[0] in listed
    assert "44100 Hz" in listed
    assert "LSTMEncoderDecoderModel, window 10" in listed


def test_a_damaged_sound_is_named_and_the_others_described(served: Workspace) -> None:
    mixed = served.folder / "mixed"
    mixed.mkdir()
    (mixed / "broken.wav").write_text("no sound")
    (mixed / "fine.wav").write_bytes((served.folder / "prediction" / "tabla.wav").read_bytes())
    done = served.run("extract", "mixed", "--out", "mixed-out")
    assert done.returncode == 0
    assert "left out: broken.wav" in done.stderr
    assert [path.name for path in (served.folder / "mixed-out").iterdir()] == ["fine.wav.json"]


def test_doctor_finds_this_machine_complete(work: Workspace) -> None:
    said = work.output("doctor")
    assert "missing" not in said
    assert str(work.home) in said


def test_doctor_says_how_to_mend_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMIURGE_PORT", "many")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "-> mend or unset DEMIURGE_PORT" in shown.output


def test_published_models_are_imported_and_sing(served: Workspace) -> None:
    singer = served.output("import", GOLDEN / "unagan", "--id", "singer")
    voice = served.output("import", GOLDEN / "melgan" / "gru", "--checkpoint", "netG.pt")
    assert singer == "unagan singer@0"
    family, _, voice_id = voice.partition(" ")
    assert family == "melgan"
    served.output(
        *("generate", "--unagan", "singer", "--melgan", voice_id, "--duration", "0.2"),
        *("--out", "published"),
    )
    assert soundfile.info(str(served.folder / "published" / "seed-0-0.2s.wav")).frames == 8820


def test_an_attack_is_refused_by_name_and_nothing_stored(work: Workspace) -> None:
    folder = work.folder / "attack"
    folder.mkdir()
    call = "touch " + str(work.folder / "attacked")
    pickled = b"cposix\nsystem\n(S'" + call.encode() + b"'\ntR."
    (folder / "netG.pt").write_bytes(pickled)
    (folder / "args.yml").write_bytes((GOLDEN / "melgan" / "gru" / "args.yml").read_bytes())
    before = set((work.home / "store").rglob("*"))
    assert "posix.system" in work.refusal("import", "attack")
    assert not (work.folder / "attacked").exists()
    assert set((work.home / "store").rglob("*")) == before


@pytest.mark.parametrize(
    ("order", "culprit"),
    [
        ("run --prediction prediction --direct --recorded nowhere --predictor x", "nowhere"),
        (
            "run --prediction prediction --direct --unagan x --melgan x --predictor x",
            "give --recorded",
        ),
        ("run --prediction empty --direct --recorded recorded --predictor x", "empty"),
        ("run --prediction prediction", "--recorded"),
        ("train melgan --recorded nowhere", "nowhere"),
        ("generate --unagan nobody --melgan nobody", "'nobody'"),
        ("predict nothing.json --predictor x", "nothing.json"),
        ("match recorded --collection x", "recorded"),
        ("render prediction/tabla.wav", "tabla.wav"),
        ("index recorded --collection ../x", "../x"),
        ("import empty", "empty"),
        ("runs show run-0123", "run-0123"),
        ("serve violin", "violin"),
    ],
)
def test_an_error_is_one_line_that_names_the_culprit(
    served: Workspace, order: str, culprit: str
) -> None:
    (served.folder / "empty").mkdir(exist_ok=True)
    done = served.run(*order.split())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    *progress, last = done.stderr.splitlines()
    assert last.startswith("demiurge: ")
    assert culprit in last
    assert not any(line.startswith("demiurge: ") for line in progress)
    assert not done.stdout


def test_an_unknown_setting_is_named_with_a_hint(work: Workspace) -> None:
    said = work.given(DEMIURGE_STOER="x").refusal("runs")
    assert (
        said
        == "demiurge: DEMIURGE_STOER is not a setting of Demiurge; did you mean DEMIURGE_STORE?"
    )


def test_a_folder_that_cannot_be_written_is_named(served: Workspace) -> None:
    (served.folder / "taken").write_text("a file")
    assert "taken" in served.run("extract", "prediction", "--out", "taken").stderr.splitlines()[-1]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        place = Workspace(tmp_path, {"DEMIURGE_PORT": port})
        said = place.refusal("up")
    assert "DEMIURGE_PORT" in said
    assert port in said
    assert not place.notice.exists()


def test_a_terminal_gets_bars_and_a_log_gets_lines(served: Workspace) -> None:
    call = ("extract", "prediction", "--out", "for-a-terminal")
    shown = on_a_terminal(served, *call)
    assert "\x1b[" in shown
    assert "━" in shown
    assert "2/2" in shown
    done = served.run(*call)
    assert done.stderr.splitlines()[-1] == "extracting: 2 of 2"
    assert not re.search(r"[^\n -~]", done.stderr)


def on_a_terminal(place: Workspace, *arguments: str) -> str:
    """What a command shows on a terminal of its own."""
    parent, child = pty.openpty()
    with os.fdopen(parent, "rb", buffering=0) as screen:
        with os.fdopen(child, "wb", buffering=0) as terminal:
            process = subprocess.Popen(
                [str(COMMAND), *arguments],
                cwd=place.folder,
                env=place.environment() | {"TERM": "xterm-256color", "COLUMNS": "100"},
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
        shown = b""
        # The kernel's word for a terminal that nobody writes to any more.
        with suppress(OSError):
            while block := screen.read(4096):
                shown += block
        assert process.wait() == 0, shown
    return shown.decode()


def chosen(models: Mapping[str, str]) -> list[str]:
    return [f"--{family}={version}" for family, version in models.items()]
