"""The example predictor is short, needs nothing of ours but the contract, and keeps to our pins."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "predictor"
MOST_LINES = 149


def pins(file: Path) -> dict[str, str]:
    lines = re.findall(r"^([\w-]+)==(\S+)$", file.read_text(), re.MULTILINE)
    return dict(lines)


def test_the_example_predictor_is_short() -> None:
    assert len((EXAMPLE / "server.py").read_text().splitlines()) <= MOST_LINES


def test_the_example_predictor_imports_neither_services_nor_torch() -> None:
    program = (
        "import runpy, sys; runpy.run_path('server.py', run_name='example');"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=EXAMPLE, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "demiurge" in modules
    assert not modules & {"services", "torch"}


def test_the_example_predictor_is_pinned_as_everything_is() -> None:
    named = pins(EXAMPLE / "requirements.txt")
    assert set(named) == {
        "grpcio",
        "grpcio-health-checking",
        "numpy",
        "protobuf",
        "protovalidate",
    }
    ours = pins(ROOT / "constraints.txt")
    assert named == {name: ours[name] for name in named}


def test_the_image_of_the_example_takes_what_is_there() -> None:
    lines = (EXAMPLE / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert len(copied) >= 4
    assert [path for paths in copied for path in paths if not (ROOT / path).exists()] == []
    assert not any("services" in path for paths in copied for path in paths)
