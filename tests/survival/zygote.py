"""A process that has imported everything heavy, and forks a child for each scene in milliseconds.

It reads one order a line from stdin, and answers each by one line on stdout. It never starts a
thread, since a fork copies only the one that forks.
"""

import gc
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

import librosa  # noqa: F401 - for the children
import matplotlib.figure  # noqa: F401
import numpy as np
import qdrant_edge  # noqa: F401
import soundfile  # noqa: F401
import soxr  # noqa: F401
import torch._dynamo  # noqa: F401 - an optimizer imports it

from services.cli import composition, connection  # noqa: F401
from services.cli.training import begin as training  # noqa: F401
from services.descriptor import mfcc
from services.descriptor import servicer as descriptor  # noqa: F401
from services.gateway import servicer as gateway  # noqa: F401
from services.playback import servicer as playback  # noqa: F401
from services.predictor import servicer as predictor  # noqa: F401
from services.predictor.training import trainer  # noqa: F401
from services.synth import servicer as synth  # noqa: F401
from services.synth.melgan import training as melgan  # noqa: F401
from services.synth.unagan import training as unagan  # noqa: F401
from tests.survival.child import Scene, play

POLL_SECONDS = 0.002


def main() -> None:
    """Answers orders until stdin is closed."""
    # What is compiled at the first call is compiled for all children.
    mfcc.extract(np.zeros(44_100, np.float32), mfcc.ExtractionSettings())
    gc.collect()
    gc.freeze()
    print("ready", flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        print(json.dumps(_obey(json.loads(line))), flush=True)  # noqa: T201


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    """Plays a scene; kills it after `seconds`, if given, or for hanging after `limit`."""
    child = os.fork()
    if not child:
        _become(Scene.from_json(order["scene"]), order["log"])
    begin = time.monotonic()
    seconds = order["seconds"]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        passed = time.monotonic() - begin
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": passed}
        if seconds is not None and passed >= seconds:
            os.kill(child, signal.SIGKILL)
            seconds = None
        if passed >= order["limit"]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": None, "seconds": passed}
        time.sleep(POLL_SECONDS)


def _become(scene: Scene, log: str) -> None:
    """The child: plays, and never returns."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    code = 1
    try:
        play(scene)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
