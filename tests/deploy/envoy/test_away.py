"""A service that is away behind Envoy, which is not: the command names the service."""

from pathlib import Path

import pytest

from tests.deploy.envoy.names import Names
from tests.deploy.envoy.proxy import running
from tests.e2e.workspace import Workspace

# Envoy is patient for half a minute, which changes nothing of what is told.
AT_ONCE = {"num_retries: 16": "num_retries: 1"}


@pytest.mark.parametrize(("verb", "noun"), [("models", "synth"), ("runs", "gateway")])
def test_who_is_away_is_named_and_not_envoy(
    names: Names, tmp_path: Path, verb: str, noun: str
) -> None:
    with running(tmp_path, names.port, changes=AT_ONCE) as proxy:
        place = Workspace(tmp_path, {"DEMIURGE_ADDRESS": proxy.address})

        said = place.refusal(verb)

    assert f"{proxy.address} answers, but {noun} behind it cannot be reached: " in said
    assert f"see that {noun} runs" in said
