"""Somebody outside who wants pieces: calls the published address alone, as the command line does.

What a retry policy rides out, the command line's does; so an error that comes out of here is one
that reached a caller.
"""

# ruff: noqa: PLC0415

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.conftest import sound, spec, upload_messages
from tests.deploy.stack import Stack
from tests.e2e.processes import STAGES, WORKS_IN
from tests.e2e.workspace import wait_until

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec

    from services.cli.connection import Client

LONGEST_SECONDS = 240.0
SOUNDS = {f"{seed}.wav": sound(1.0, seed) for seed in (1, 2)}
# A worker held before its stage would be asked for already when a run is created.
HELD_BEFOREHAND = {"extract", "index", "render"}


@dataclass(frozen=True)
class Caller:
    """A client of the stack, by its published address."""

    stack: Stack
    client: "Client"

    def upload(self) -> None:
        """Two sounds to continue."""
        for name, content in SOUNDS.items():
            messages = upload_messages("prediction", name, content)
            self.client.pipeline.UploadAudio(iter(messages))

    def create(self, wanted: "RunSpec") -> "Run":
        """CreateRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import CreateRunRequest

        run: Run = self.client.pipeline.CreateRun(CreateRunRequest(spec=wanted)).run
        return run

    def look(self, run: "Run") -> "Run":
        """GetRun."""
        from demiurge.gateway.v1.gateway_service_pb2 import GetRunRequest

        found: Run = self.client.pipeline.GetRun(GetRunRequest(run_id=run.id)).run
        return found

    def ended(self, wanted: "RunSpec", run: "Run") -> "Run":
        """The run as it ended, followed as `demiurge run` follows it."""
        from services.cli.following import states
        from services.cli.progress import Progress

        with Progress() as progress:
            *_, last = states(self.client, wanted, run, progress)
        return last

    def made(self, wanted: "RunSpec") -> "Run":
        """The run of `wanted`, ended."""
        return self.ended(wanted, self.create(wanted))

    def download(self, key: str) -> bytes:
        """DownloadAudio."""
        from demiurge.gateway.v1.gateway_service_pb2 import DownloadAudioRequest

        parts = self.client.pipeline.DownloadAudio(DownloadAudioRequest(key=key))
        return b"".join(part.data for part in parts)

    @contextmanager
    def held(self, wanted: "RunSpec", stage: str) -> "Iterator[Run]":
        """The run, at work in that stage, whose service is frozen; it goes on afterwards."""
        noun = WORKS_IN[stage]
        with ExitStack() as frozen:
            if stage in HELD_BEFOREHAND:
                frozen.enter_context(self._frozen(noun))
            if stage == "match":
                with self._frozen_after_creation("predictor", wanted) as run:
                    self._reaches(run, "predict")
                    frozen.enter_context(self._frozen(noun))
            else:
                run = self.create(wanted)
                if stage not in HELD_BEFOREHAND:
                    frozen.enter_context(self._frozen(noun))
            self._reaches(run, stage)
            yield run

    def in_each_stage(self, run: "Run") -> Iterator[str]:
        """The stages of a run that has just begun, whose service is frozen at work in each."""
        nouns = tuple(dict.fromkeys(WORKS_IN.values()))
        with ExitStack() as frozen:
            for noun in nouns:
                frozen.enter_context(self._frozen(noun))
            for stage in STAGES:
                self._reaches(run, stage)
                if stage == "predict":
                    # It has indexed, and will be asked to match.
                    self.stack.pause(WORKS_IN["match"])
                yield stage
                self.stack.unpause(WORKS_IN[stage])

    @contextmanager
    def _frozen(self, noun: str) -> Iterator[None]:
        self.stack.pause(noun)
        try:
            yield
        finally:
            # What was killed meanwhile has started anew, and is not frozen any more.
            self.stack.unpause(noun)

    @contextmanager
    def _frozen_after_creation(self, noun: str, wanted: "RunSpec") -> "Iterator[Run]":
        run = self.create(wanted)
        with self._frozen(noun):
            yield run

    def _reaches(self, run: "Run", stage: str) -> None:
        from demiurge.gateway.v1.gateway_service_pb2 import State

        number = STAGES.index(stage)
        began = {State.STATE_RUNNING, State.STATE_SUCCEEDED}
        wait_until(lambda: self.look(run).stages[number].state in began, LONGEST_SECONDS)
        assert self.look(run).stages[number].state == State.STATE_RUNNING, f"{stage} was not held"


@contextmanager
def calling(stack: Stack) -> Iterator[Caller]:
    """A caller for as long as the block."""
    from services.cli.connection import connect

    with ExitStack() as opened:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in stack.environment().items():
                patch.setenv(name, value)
            client = opened.enter_context(connect())
        yield Caller(stack, client)


def wanted_run(seed: int, stage: str = "") -> "RunSpec":
    """A run like no other, which takes some time in that stage."""
    return spec(frames=20, files=30 if stage == "generate" else 3, seconds=0.4, seed=seed)


def digests(run: "Run") -> dict[str, str]:
    """SHA-256 of all that a run has made, by name; a run that failed fails with its own words."""
    from demiurge.gateway.v1.gateway_service_pb2 import State

    assert run.state == State.STATE_SUCCEEDED, run.failure
    result = run.result
    return {name: getattr(result, name).sha256 for name in ("audio", "edit_list", "spectrogram")}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
