import os
import subprocess
import sys
from pathlib import Path

ONLINE = """
import sys
from pathlib import Path
from services.cli.training import tracking

tracking.SECONDS_TO_START = 2.0
with tracking.Tracker("abc12345", "melgan birds", {}, Path(sys.argv[1]), print) as tracker:
    tracker.log(1, {"loss": 0.5})
"""


def test_the_course_is_kept_offline_where_wandb_cannot_be_reached(tmp_path: Path) -> None:
    # A process of its own: W&B reads its settings once.
    settings = {
        "WANDB_MODE": "online",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, str(tmp_path / "wandb")],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (said,) = done.stdout.splitlines()
    assert said.startswith("W&B does not work, training goes on without it: ")
    (kept,) = (tmp_path / "wandb").rglob("offline-run-*-abc12345/run-abc12345.wandb")
    assert kept.stat().st_size
