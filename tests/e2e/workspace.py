"""A folder with recordings and a home of its own, where the command is run as people run it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import soundfile

COMMAND = Path(sys.executable).with_name("demiurge")
CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
RATE = 44_100
LONGEST_SECONDS = 240


@dataclass(frozen=True)
class Workspace:
    """Where commands run. `settings` are environment variables beside those that isolate it."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def notice(self) -> Path:
        """What `demiurge up` tells other commands by."""
        return self.home / "query" / "running.json"

    def environment(self) -> dict[str, str]:
        foreign = ("DEMIURGE_", "WANDB_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = {"DEMIURGE_HOME": str(self.home), "DEMIURGE_PORT": "0", "OMP_NUM_THREADS": "1"}
        return kept | own | self.settings

    def given(self, **settings: str) -> "Workspace":
        """The same with other settings."""
        return Workspace(self.folder, self.settings | settings)

    def start(
        self, *arguments: object, stderr: IO[str] | int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        """The command, started as a terminal does: in a process group of its own."""
        return subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """The command, ended."""
        return ended(self.start(*arguments))

    def output(self, *arguments: object) -> str:
        """What a command that succeeds prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refusal(self, *arguments: object) -> str:
        """The one line that a command which fails leaves."""
        done = self.run(*arguments)
        assert done.returncode == 1, done
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("demiurge: ")
        return lines[0]

    def leftovers(self) -> list[Path]:
        """Files that an interrupted command should not have left."""
        return [
            path
            for path in self.folder.rglob("*")
            if path.is_file() and (path.suffix == ".part" or ".incoming" in path.parts)
        ]

    @contextmanager
    def up(self) -> "Iterator[subprocess.Popen[str]]":
        """`demiurge up`, ready; killed afterwards if it is still there."""
        log = self.folder / "up.log"
        with log.open("w") as stderr:
            process = self.start("up", stderr=stderr)
        try:
            wait_until(lambda: self.notice.exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.kill()
            process.communicate()

    def address(self) -> str:
        return str(json.loads(self.notice.read_text())["address"])


def ended(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """The process with all it said."""
    try:
        output, errors = process.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def interrupted(process: "subprocess.Popen[str]", at: str) -> "subprocess.CompletedProcess[str]":
    """Ctrl-C, as a terminal sends it to the whole group, once a line of stderr holds `at`."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if at in line:
            break
    else:
        raise AssertionError(f"it never came to {at!r}: {said}")
    os.killpg(process.pid, signal.SIGINT)
    return ended(process)


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cut(source: str, target: Path, seconds: float = 1.2) -> None:
    """The beginning of a recording of the example corpus, as WAV."""
    samples, rate = soundfile.read(CORPUS / source, dtype="int16", frames=round(seconds * RATE))
    target.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, samples, rate)


def furnish(folder: Path) -> Workspace:
    """A workspace with recordings, their names as people name them."""
    cut("recorded/ambi_choir.flac", folder / "recorded" / "chœur, été.wav")
    cut("recorded/perc_bell.flac", folder / "recorded" / "bells" / "bell 1.WAV")
    cut("recorded/guit_e_slide.flac", folder / "recorded" / "bells" / "slide.wav")
    cut("prediction/loop_tabla.flac", folder / "prediction" / "tabla.wav")
    cut("prediction/loop_mika.flac", folder / "prediction" / "mika.wav")
    return Workspace(folder)
