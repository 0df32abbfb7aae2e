"""The contract is linted and its generated code is fresh; both checks bite."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = Path("protos/demiurge/query/v1/query_service.proto")
DESCRIPTORS = Path("deploy/envoy/demiurge.binpb")


def check(root: Path) -> subprocess.CompletedProcess[str]:
    # buf stands beside the interpreter, in an environment that need not be activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, root / "protos/generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=ignored)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    (tmp_path / DESCRIPTORS).parent.mkdir(parents=True)
    shutil.copy(ROOT / DESCRIPTORS, tmp_path / DESCRIPTORS)
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    text = (root / PROTO).read_text()
    assert old in text
    (root / PROTO).write_text(text.replace(old, new, 1))


def test_the_generated_code_is_fresh() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_field_without_new_code_is_noticed(copy: Path) -> None:
    edit(
        copy, "bool published = 5;", "bool published = 5;\n  // Not in the code.\n  bool odd = 99;"
    )
    done = check(copy)
    assert done.returncode != 0
    assert "stale" in done.stderr


def test_a_file_that_no_proto_makes_is_noticed(copy: Path) -> None:
    (copy / "protos/gen/demiurge/left_over_pb2.py").write_text("")
    done = check(copy)
    assert done.returncode != 0
    assert "stale" in done.stderr


def test_descriptors_that_no_proto_makes_are_noticed(copy: Path) -> None:
    (copy / DESCRIPTORS).write_bytes((copy / DESCRIPTORS).read_bytes()[:-1])
    done = check(copy)
    assert done.returncode != 0
    assert f"{DESCRIPTORS} is stale" in done.stderr


def test_a_missing_comment_is_refused(copy: Path) -> None:
    edit(copy, "  // True once published.\n", "")
    done = check(copy)
    assert done.returncode != 0
    assert "should have a non-empty comment" in done.stdout


def test_a_name_against_the_style_is_refused(copy: Path) -> None:
    edit(copy, "bool published = 5;", "bool isPublished = 5;")
    done = check(copy)
    assert done.returncode != 0
    assert "should be lower_snake_case" in done.stdout
