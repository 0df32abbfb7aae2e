"""`make corpus` on packages that are built here: never from the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import sound

SCRIPT = Path(__file__).parents[3] / "examples" / "fetch_corpora.py"
pytestmark = pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="dpkg-deb, which builds and opens packages, is not there"
)
CONTROL = """\
Package: {name}
Version: 1:2.0-1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Homepage: https://example.org/music
Description: music
"""


def build(folder: Path, name: str, files: dict[str, bytes], *, licensed: bool = True) -> Path:
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    if licensed:
        files = {**files, f"usr/share/doc/{name}/copyright": b"CC0"}
    files = {**files, "DEBIAN/control": CONTROL.format(name=name).encode()}
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    deb = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-b", tree, deb], check=True, capture_output=True)
    return deb


def fetch(into: Path, *wanted: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({} if path is None else {"PATH": path})
    command = [sys.executable, SCRIPT, "--into", into, *wanted]
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_package_becomes_a_folder_of_its_sounds_with_licence_and_origin(tmp_path: Path) -> None:
    files = {
        "usr/share/games/g/music/a.wav": sound(0.1, 1),
        "usr/share/games/g/music/lost/a.wav": sound(0.1, 2),
        "usr/share/games/g/music/cover.png": b"picture",
    }
    deb = build(tmp_path, "good-music", files)
    done = fetch(tmp_path / "corpora", deb)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/corpora/good-music: 2 sounds\n"
    made = tmp_path / "corpora" / "good-music"
    assert {path.name for path in made.iterdir()} == {
        "ORIGIN.md",
        "a.wav",
        "copyright",
        "lost - a.wav",
    }
    assert (made / "lost - a.wav").read_bytes() == sound(0.1, 2)
    assert (made / "copyright").read_bytes() == b"CC0"
    origin = (made / "ORIGIN.md").read_text()
    for told in ("good-music 1:2.0-1", "https://example.org/music", "/usr/share/games/g/music"):
        assert told in origin
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == ["good-music"]


def test_what_is_there_already_stays_and_what_fails_stops_no_other(tmp_path: Path) -> None:
    music = {"usr/share/music/a.wav": sound(0.1, 1)}
    good = build(tmp_path, "good-music", music)
    bare = build(tmp_path, "bare-music", music, licensed=False)
    silent = build(tmp_path, "no-music", {"usr/share/text": b"text"})
    broken = tmp_path / "broken-music.deb"
    broken.write_bytes(good.read_bytes()[:-200])
    corpora = tmp_path / "corpora"
    # What a call that was killed leaves.
    (corpora / ".good-music.part" / "good-music").mkdir(parents=True)
    (corpora / "older-music").mkdir()
    (corpora / "older-music" / "mine.wav").write_bytes(sound(0.1, 3))
    done = fetch(corpora, bare, silent, broken, tmp_path / "nowhere.deb", "older-music", good)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    for name in ("bare-music", "no-music", "broken-music", "nowhere"):
        assert any(name in line for line in lines), name
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in corpora.iterdir()) == ["good-music", "older-music"]
    assert [path.name for path in (corpora / "older-music").iterdir()] == ["mine.wav"]


def test_without_apt_it_is_said_what_to_do(tmp_path: Path) -> None:
    done = fetch(tmp_path / "corpora", "good-music", path=str(tmp_path))
    assert done.returncode == 1
    assert "apt-get is not there" in done.stderr
    assert "https://packages.debian.org/good-music" in done.stderr


def test_what_is_no_name_of_a_package_is_refused(tmp_path: Path) -> None:
    done = fetch(tmp_path / "corpora", "../good-music")
    assert done.returncode == 1
    assert "no name of a package" in done.stderr
    assert not (tmp_path / "corpora").exists()
