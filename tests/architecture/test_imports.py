"""Nothing heavy is imported before it is needed, and the walls between the nouns hold."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOUNS = ("synth", "descriptor", "predictor", "query", "playback", "gateway")
HEAVY = {
    "grpc",
    "librosa",
    "matplotlib",
    "qdrant_client",
    "qdrant_edge",
    "scipy",
    "soundfile",
    "torch",
    "wandb",
}


def modules_after(statements: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statements`."""
    report = "\nimport sys; print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", statements + report],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    marker, *modules = done.stdout.splitlines()[-1].split()
    assert marker == "MODULES"
    return set(modules)


def test_heavy_modules_would_be_noticed() -> None:
    assert "soundfile" in modules_after("import soundfile")


def test_the_command_imports_nothing_heavy() -> None:
    assert not modules_after("import services.cli.main") & HEAVY


def test_the_help_of_the_command_imports_nothing_heavy() -> None:
    call = (
        "import sys; from services.cli.main import main\n"
        "sys.argv = ['demiurge', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code"
    )
    assert not modules_after(call) & HEAVY


def test_a_probe_loads_neither_settings_nor_anything_heavier_than_grpc() -> None:
    probe = (
        "from services.cli.health import asked\n"
        "try: asked('127.0.0.1:1', 'readiness')\n"
        "except Exception as error: assert 'no answer' in str(error)"
    )
    assert not modules_after(probe) & (HEAVY - {"grpc"} | {"pydantic", "structlog"})


def test_traces_cost_nothing_where_no_collector_is_set() -> None:
    server = (
        "import services.runtime.server\n"
        "from services.runtime.settings import RuntimeSettings\n"
        "from services.runtime.tracing import open_tracing\n"
        "open_tracing(RuntimeSettings(), 'synth')"
    )
    assert not modules_after(server) & {"opentelemetry", "requests"}


def test_no_noun_imports_anything_heavy_by_its_name_alone() -> None:
    statements = "; ".join(f"import services.{noun}" for noun in NOUNS)
    assert not modules_after(statements) & HEAVY


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("query/settings.py", "import torch"),
        ("predictor/port.py", "import librosa"),
        ("descriptor/mfcc.py", "import services.query"),
        ("playback/mixer.py", "import grpc"),
        ("synth/generation/synthesizer.py", "import services.runtime.settings"),
        ("runtime/settings.py", "import services.synth"),
        ("audio/track.py", "import soundfile"),
        ("gateway/settings.py", "import services.cli"),
    ],
)
def test_a_forbidden_import_is_refused(tmp_path: Path, file: str, statement: str) -> None:
    shutil.copytree(
        ROOT / "services", tmp_path / "services", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    target = tmp_path / "services" / file
    with target.open("a") as source:
        source.write(f"\n{statement}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    module = f"services.{file.removesuffix('.py').replace('/', '.')}"
    forbidden = statement.removeprefix("import ")
    assert done.returncode == 1
    assert f"{module} -> {forbidden}" in done.stdout
