"""`demiurge train` as a composer uses it: real processes, narrow models."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.cli.train import app as train_app
from services.cli.training.flags import RESERVED
from services.errors import InvalidInputError
from tests.conftest import sound
from tests.e2e.processes import free_port
from tests.e2e.workspace import Workspace, ended, wait_until

MEL = ("--n-fft", "256", "--hop-length", "64", "--win-length", "256", "--n-mels", "16")
SLOW = pytest.mark.slow
NARROW = (
    *("--ngf", "2", "--ratios", "8,8", "--ndf", "2", "--max-channels", "8", *MEL),
    *("--batch-size", "2", "--crop_samples", "2048", "--validation-seconds", "0.2"),
)
MELGAN = ("train", "melgan", "--recorded", "voices", *NARROW)
PREDICTOR = (
    *("train", "predictor", "--recorded", "voices", "--window-size", "5"),
    *("--hidden-size", "4", "--num-layers", "1"),
)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    (tmp_path / "voices").mkdir()
    for seed in (1, 2, 3):
        (tmp_path / "voices" / f"{seed}.wav").write_bytes(sound(0.5, seed))
    return Workspace(tmp_path, {"WANDB_MODE": "disabled"})


def in_process(work: Workspace, monkeypatch: pytest.MonkeyPatch, *call: object) -> Result:
    """The command without a process of its own; raises what it raises."""
    monkeypatch.chdir(work.folder)
    for name, value in work.environment().items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, [str(word) for word in call])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def weights(work: Workspace, family: str, step: int) -> bytes:
    (path,) = (work.home / "store" / "models" / family).glob(f"*/{step}/model.safetensors")
    return path.read_bytes()


def only_model(work: Workspace, family: str) -> str:
    (folder,) = (work.home / "store" / "models" / family).iterdir()
    return folder.name


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=SLOW)]
)
def test_a_training_that_is_told_to_stop_saves_and_the_same_call_goes_on(
    work: Workspace, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    call = (*PREDICTOR, "--steps", "100000", "--every", "100000")
    process = work.start(*call)
    checkpoints = work.home / "store" / "checkpoints" / "predictor"
    wait_until(lambda: any(checkpoints.glob("*/training.json")))
    assert process.stderr
    while "training predictor" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(number)
    done = ended(process)
    assert done.returncode == code, done.stderr
    (step,) = re.findall(r"stopped after step (\d+), which is kept", done.stderr)
    (identity,) = re.findall(r"demiurge train predictor --resume (\w+)", done.stderr)
    assert list(checkpoints.glob(f"{identity}/{step}.pt"))
    again = in_process(work, monkeypatch, *PREDICTOR[:2], "--resume", identity, "--minutes", "0")
    assert again.stdout.strip() == f"{identity}@{int(step) + 1}"
    again = in_process(work, monkeypatch, *call, "--minutes", "0")
    assert f"goes on after step {int(step) + 1}" in again.stderr


def test_a_prolonged_training_has_the_weights_of_one_that_was_as_long_at_once(
    work: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ("--schedule", "constant", "--seed", "3")
    in_process(work, monkeypatch, *MELGAN, *constant, "--steps", "2")
    identity = only_model(work, "melgan")
    with pytest.raises(InvalidInputError, match="--steps 1"):
        in_process(work, monkeypatch, "train", "melgan", "--resume", identity, "--steps", "1")
    in_process(work, monkeypatch, "train", "melgan", "--resume", identity, "--steps", "4")
    prolonged = weights(work, "melgan", 4)
    shutil.rmtree(work.home / "store")
    in_process(work, monkeypatch, *MELGAN, *constant, "--steps", "4")
    assert weights(work, "melgan", 4) == prolonged


def test_beside_resume_recorded_settings_and_recordings_hold(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(work, monkeypatch, *PREDICTOR, "--steps", "2")
    identity = only_model(work, "predictor")
    resume = ("train", "predictor", "--resume", identity)
    with pytest.raises(InvalidInputError, match="leave out --seed, --hidden-size"):
        in_process(work, monkeypatch, *resume, "--hidden-size", "8", "--seed", "0")
    (work.folder / "voices" / "2.wav").write_bytes(sound(0.5, 9))
    (work.folder / "voices" / "4.wav").write_bytes(sound(0.5, 4))
    with pytest.raises(Exception, match=r"2\.wav is changed; 4\.wav is new"):
        in_process(work, monkeypatch, *resume, "--steps", "4")
    with pytest.raises(Exception, match=f"no training of a predictor 'nobody'.*{identity}"):
        in_process(work, monkeypatch, "train", "predictor", "--resume", "nobody")


def test_every_value_of_a_preset_is_a_flag_and_is_recorded(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--steps", "1", "--betas", "0.5,0.9", "--no-fit-to-data", "--gain_decibels", "3")
    in_process(work, monkeypatch, *MELGAN, *given)
    (path,) = (work.home / "store" / "models" / "melgan").glob("*/1/config.json")
    config = json.loads(path.read_text())
    assert config["training"]["betas"] == [0.5, 0.9]
    assert config["training"]["fit_to_data"] is False
    assert config["training"]["augmentation"]["gain_decibels"] == 3.0
    assert config["overrides"]["generator.ratios"] == "8,8"
    card = (path.parent / "card.md").read_text()
    assert "--betas 0.5,0.9" in card
    assert "--no-fit-to-data" in card


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--ngff", "2"), "--ngf"),
        (("--betas", "0.5"), "betas"),
        (("--batch-size", "many"), "batch_size: input should be a valid integer"),
        (("--schedule", "wavy"), "'constant' or 'cosine'"),
    ],
)
def test_a_flag_that_cannot_be_is_refused_by_name(
    work: Workspace, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], told: str
) -> None:
    try:
        done = in_process(work, monkeypatch, "train", "melgan", "--recorded", "voices", *flags)
    except InvalidInputError as error:
        assert told in error.message  # noqa: PT017 - or else it is a usage error
    else:
        assert told in done.output
    assert not (work.home / "store" / "models").exists()


@pytest.mark.parametrize("family", ["melgan", "unagan", "predictor"])
def test_show_prints_all_settings_with_values_and_what_they_do(family: str) -> None:
    shown = CliRunner().invoke(app, ["train", family, "--show", "--batch-size", "3"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert "--batch-size 3" in lines
    assert not [line for line in lines if line.endswith((" True", " False"))]
    flags = [line for line in lines if line.startswith("--")]
    assert len(flags) == len(set(flags)) > 15
    undocumented = [
        flag for flag, below in zip(lines[::2], lines[1::2], strict=True) if not below.strip()
    ]
    assert undocumented == []


def test_the_commands_own_flags_are_those_that_no_setting_may_have() -> None:
    import typer  # noqa: PLC0415

    group = typer.main.get_command(train_app)
    own = {flag for each in group.commands["melgan"].params for flag in each.opts}  # type: ignore[attr-defined]
    assert own | {"--help"} == set(RESERVED)


def test_an_audio_database_of_the_store_is_learned_from(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = work.home / "store" / "audio"
    audio.mkdir(parents=True)
    shutil.copytree(work.folder / "voices", audio / "choir")
    call = [word for word in MELGAN if word not in {"--recorded", "voices"}]
    done = in_process(work, monkeypatch, *call, "--database", "choir", "--steps", "1")
    identity = done.stdout.strip().partition("@")[0]
    card = (work.home / "store" / "models" / "melgan" / identity / "1" / "card.md").read_text()
    assert "--database choir" in card
    found = in_process(work, monkeypatch, *MELGAN, "--steps", "1")
    assert found.stdout.strip().partition("@")[0] == identity
    with pytest.raises(InvalidInputError, match="--recorded or --database"):
        in_process(work, monkeypatch, *MELGAN, "--database", "choir")


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_goes_on_with_it(work: Workspace) -> None:
    call = (*MELGAN, "--schedule", "constant", "--steps", "4", "--every", "2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    place = ["--master-port", str(free_port()), "-m", "services.cli.main"]
    environment = work.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*torchrun, *place, *call],
        cwd=work.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    identity = only_model(work, "melgan")
    assert re.fullmatch(rf"{identity}@\d", done.stdout.strip())
    assert done.stderr.count("training melgan: 4 of 4") == 1
    log = work.home / "store" / "models" / "melgan" / identity / "log.jsonl"
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    again = work.run("train", "melgan", "--resume", identity, "--steps", "5")
    assert again.returncode == 0, again.stderr
    assert "goes on after step 4" in again.stderr
