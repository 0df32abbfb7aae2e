import argparse
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import torch

from services.cli.foreign import load_arguments, load_checkpoint
from services.errors import InvalidInputError, NotFoundError, UntrustedCheckpointError

GOLDEN = Path(__file__).parents[2] / "golden"
SAVED = {"model": {"weight": torch.arange(4.0)}, "epoch": 3}


class Attack:
    """Pickles as a call that would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.marker}'",))


class Opener:
    """Pickles as a call that would create a file through a builtin."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def pickle_naming(module: str, name: str, *parts: str) -> bytes:
    """A protocol 2 pickle, written out by hand, that calls `module.name(*parts)`."""
    texts = b"".join(b"X" + len(part).to_bytes(4, "little") + part.encode() for part in parts)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + texts + b"tR."


def checkpoint_of(pickled: bytes, path: Path) -> Path:
    """A torch zip file around a pickle."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    return path


CHECKPOINTS = sorted(
    path for path in GOLDEN.rglob("*") if path.suffix in {".pt", ".torch", ".ckpt"}
)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: str(path.relative_to(GOLDEN)))
def test_published_checkpoints_open(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert isinstance(checkpoint, dict)
    assert checkpoint


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("args.yml")), ids=lambda p: p.parent.name)
def test_published_arguments_open_with_their_paths_as_strings(path: Path) -> None:
    arguments = load_arguments(path)
    assert arguments["data_path"] == "data/violin"
    assert arguments["sampling_rate"] == 44100
    assert arguments["load_from_run_id"] is None


def test_hyper_parameters_with_paths_open(tmp_path: Path) -> None:
    saved = {
        **SAVED,
        "ordered": OrderedDict(a=1),
        "hyper_parameters": argparse.Namespace(audio_db_dir=Path("music") / "db", rate=44100),
    }
    torch.save(saved, tmp_path / "run.ckpt")
    opened = load_checkpoint(tmp_path / "run.ckpt")
    assert opened["hyper_parameters"].audio_db_dir == PurePosixPath("music/db")
    assert opened["hyper_parameters"].rate == 44100
    assert opened["ordered"] == OrderedDict(a=1)
    assert torch.equal(opened["model"]["weight"], SAVED["model"]["weight"])  # type: ignore[index]


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("PosixPath", PurePosixPath("music", "db")),
        ("PurePosixPath", PurePosixPath("music", "db")),
        ("WindowsPath", PureWindowsPath("music", "db")),
        ("PureWindowsPath", PureWindowsPath("music", "db")),
    ],
)
def test_paths_of_any_system_and_python_open_as_pure_paths(
    module: str, name: str, opened: pathlib.PurePath, tmp_path: Path
) -> None:
    path = checkpoint_of(pickle_naming(module, name, "music", "db"), tmp_path / "paths.pt")
    found = load_checkpoint(path)
    assert found == opened
    assert type(found) is type(opened)


def test_the_older_file_format_opens(tmp_path: Path) -> None:
    torch.save(SAVED, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path / "old.pt")["epoch"] == 3


def test_opening_allows_nothing_beyond_the_call() -> None:
    # torch keeps them in a set, and so in no order.
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(CHECKPOINTS[0])
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("attack", [Attack, Opener])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(
    attack: type, zipped: bool, tmp_path: Path
) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "marker"
    torch.save({**SAVED, "hook": attack(marker)}, path, _use_new_zipfile_serialization=zipped)
    named = "posix.system" if attack is Attack else "io.open"
    with pytest.raises(UntrustedCheckpointError, match=named) as refused:
        load_checkpoint(path)
    assert str(path) in refused.value.message
    assert refused.value.culprit == str(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_that_would_run_code_is_refused_by_name(
    protocol: int, tmp_path: Path
) -> None:
    path, marker = tmp_path / "evil.pt", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"hook": Attack(marker)}, protocol=protocol))
    with pytest.raises(UntrustedCheckpointError, match=r"posix\.system"):
        load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("builtins", "eval"),
        ("pathlib", "Path.write_text"),
        ("argparse", "FileType"),
        ("numpy", "load"),
    ],
)
def test_whatever_is_not_on_the_list_is_refused_by_name(
    module: str, name: str, tmp_path: Path
) -> None:
    path = checkpoint_of(pickle_naming(module, name, "x"), tmp_path / "other.pt")
    with pytest.raises(UntrustedCheckpointError, match=f"{module}.{name}"):
        load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.98])
def test_a_truncated_checkpoint_is_named(kept: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"weight": torch.ones(5000)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * kept)])
    with pytest.raises(InvalidInputError, match=r"cut\.pt") as refused:
        load_checkpoint(path)
    assert not isinstance(refused.value, UntrustedCheckpointError)


@pytest.mark.parametrize(
    "content", [b"hello there\n", b"\x00" * 100, b"RIFF....WAVEfmt ", "größe\n".encode(), b"c"]
)
def test_a_file_that_is_no_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "text.pt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"text\.pt: not a torch checkpoint"):
        load_checkpoint(path)


def test_a_folder_or_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=str(tmp_path)):
        load_checkpoint(tmp_path)
    with pytest.raises(InvalidInputError, match=str(tmp_path)):
        load_arguments(tmp_path)
    with pytest.raises(NotFoundError, match="absent"):
        load_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(NotFoundError, match="absent"):
        load_arguments(tmp_path / "absent.yml")


@pytest.mark.parametrize(
    "line",
    [
        "!!python/object/apply:os.system [\"touch '{marker}'\"]",
        "!!python/object/new:os.system [\"touch '{marker}'\"]",
        "!!python/object/apply:builtins.open ['{marker}', 'w']",
        "!!python/object/apply:pathlib.Path ['{marker}']",
        "!!python/object/apply:pathlib.PosixPath.touch ['{marker}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:subprocess.Popen {{}}",
        "!something 3",
    ],
)
def test_arguments_that_would_run_code_are_refused_by_name(line: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "args.yml", tmp_path / "marker"
    tag = line.split(maxsplit=1)[0].removeprefix("!!")
    path.write_text(
        "!!python/object:argparse.Namespace\nepochs: 3\ndata: " + line.format(marker=marker)
    )
    with pytest.raises(UntrustedCheckpointError, match=r"args\.yml") as refused:
        load_arguments(path)
    assert tag in refused.value.message
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    ["", "just words", "- a\n- list", "a: [1, 2", "a: \x01", "? [1, 2]\n: 3\n", "[" * 5000],
)
def test_arguments_that_are_none_are_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "args.yml"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=r"args\.yml") as refused:
        load_arguments(path)
    assert not isinstance(refused.value, UntrustedCheckpointError)


def test_plain_arguments_without_tags_open(tmp_path: Path) -> None:
    path = tmp_path / "args.yml"
    path.write_text("epochs: 3\nratios: [8, 8, 2, 2]\nbase: &b {x: 1}\nagain: *b\n")
    opened = load_arguments(path)
    assert opened == {"epochs": 3, "ratios": [8, 8, 2, 2], "base": {"x": 1}, "again": {"x": 1}}
