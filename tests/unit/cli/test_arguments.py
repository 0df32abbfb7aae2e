from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app
from services.errors import InvalidInputError

RUN = ("run", "--prediction", "voices", "--recorded", "voices")
GENERATE = ("generate", "--unagan", "a", "--melgan", "b")
PREDICT = ("predict", "a.json", "--predictor", "a")


@pytest.mark.parametrize(
    ("verb", "option", "value"),
    [
        *((verb, "--seed", str(2**64)) for verb in (RUN, GENERATE, PREDICT)),
        *((verb, "--duration", value) for verb in (RUN, GENERATE) for value in ("nan", "inf")),
        *((verb, "--files", "100001") for verb in (RUN, GENERATE)),
        (RUN, "--duration", "23220"),
        (RUN, "--file-duration", "3601"),
        (RUN, "--crossfade", "inf"),
        (RUN, "--temperature", "nan"),
        (GENERATE, "--duration", "3601"),
        (PREDICT, "--steps", "100001"),
        (("train", "predictor", "--recorded", "voices"), "--seed", str(2**64)),
        (("extract", "voices"), "--hop-length", "2147483648"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_option(
    verb: tuple[str, ...], option: str, value: str
) -> None:
    done = CliRunner().invoke(app, [*verb, option, value])
    assert done.exit_code == 2
    assert option in done.output


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        ("--experiment_dir", "DEMIURGE_HOME"),
        ("--save_interval=5", "--every"),
        ("--remove-outliers", "--outlier-deviations"),
    ],
)
def test_a_published_flag_that_is_not_ours_is_told_with_what_to_do(flag: str, advice: str) -> None:
    done = CliRunner().invoke(app, ["train", "predictor", "--selected_model", "LSTM", flag, "x"])
    assert done.exit_code == 2
    assert advice in done.output


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), "--melgan, --predictor, --unagan"),
        (("--unagan", "a", "--melgan", "b"), "--predictor"),
        (("--direct",), "--predictor"),
    ],
)
def test_nothing_is_trained_for_a_gateway_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], missing: str
) -> None:
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "a.wav").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMIURGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DEMIURGE_GATEWAY_ADDRESS", "music.example:50051")
    done = CliRunner().invoke(app, [*RUN, *given])
    assert isinstance(done.exception, InvalidInputError)
    assert str(done.exception).startswith(f"give {missing}: ")
    assert "music.example:50051" in str(done.exception)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("given", [(), ("folder", "--database", "recordings")])
def test_what_is_to_be_described_is_said_once(given: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["extract", *given])
    assert isinstance(done.exception, InvalidInputError)
    assert done.exception.culprit == "--database"
