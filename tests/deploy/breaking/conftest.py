"""A stack to break, somebody who calls it, and services that nobody disturbs."""

# ruff: noqa: PLC0415

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import OpenStack
from tests.conftest import Stack as Embedded
from tests.deploy.breaking.caller import SOUNDS, Caller, calling
from tests.deploy.stack import Stack

if TYPE_CHECKING:
    from demiurge.gateway.v1.gateway_service_pb2 import Run, RunSpec


@pytest.fixture(scope="session")
def caller(stack: Stack) -> Iterator[Caller]:
    """One client for all tests, as long-lived as a studio's."""
    with calling(stack) as caller:
        caller.upload()
        yield caller


@pytest.fixture(scope="session")
def undisturbed(
    open_stack: OpenStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Embedded]:
    """All services in this process, which nobody breaks."""
    with open_stack(tmp_path_factory.mktemp("undisturbed")) as opened:
        for name, content in SOUNDS.items():
            opened.upload("prediction", name, content)
        yield opened


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test broke is whole again before the next."""
    yield
    if "stack" in request.fixturenames:
        request.getfixturevalue("stack").wait()


def assert_whole(stack: Stack) -> None:
    """Every object has the content that was recorded with it, every point its descriptor."""
    said = stack.run("demiurge", "doctor", "--deep")
    assert "damaged" not in said, said


def assert_same(run: "Run", wanted: "RunSpec", caller: Caller, undisturbed: Embedded) -> None:
    """The run has made, and gives to whoever downloads it, what it makes without trouble."""
    from tests.deploy.breaking.caller import digests, sha256

    made = digests(run)
    assert made == digests(undisturbed.made(wanted))
    assert sha256(caller.download(run.result.audio.key)) == made["audio"]
