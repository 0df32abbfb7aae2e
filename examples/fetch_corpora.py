"""Hours of music to train predictors on, from packages of Debian: free, but not ours to pass on.

    python examples/fetch_corpora.py [--into FOLDER] [PACKAGE or FILE.deb …]

Nothing is installed, and nobody needs to be root: apt fetches the packages, dpkg-deb opens them.
Each becomes a folder of its sounds, with the package's copyright file and a note of its origin.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from os.path import commonpath
from pathlib import Path

from services.cli.corpus import recordings
from services.errors import DemiurgeError, InvalidInputError, NotFoundError

PACKAGES = ("wesnoth-1.16-music", "warzone2100-music", "singularity-music")
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
INTO = Path(__file__).parents[1] / "corpora"
ORIGIN = """\
# {package} {version}

- {sounds} sounds, byte for byte as they lie below `{place}` in the Debian package `{file}`
- SHA-256 of the package: {sha256}
- home: {homepage}

Authors and licences stand in `copyright`: read it before you pass on what was made of these sounds.
"""


def obtain(wanted: str, into: Path) -> Path:
    """The folder of a package, or of a .deb; one that is there already stays as it is."""
    given = Path(wanted)
    is_file = given.suffix == ".deb"
    package = _field(given, "Package") if is_file else wanted
    if not NAME.fullmatch(package):
        raise InvalidInputError(f"{package!r} is no name of a package", culprit=wanted)
    if (into / package).is_dir():
        return into / package
    with tempfile.TemporaryDirectory() as folder:
        return unpack(given if is_file else _fetch(package, Path(folder)), package, into)


def unpack(deb: Path, package: str, into: Path) -> Path:
    """The folder `into`/`package` with the sounds of a .deb; it appears whole or not at all."""
    # A fixed name: what a killed call leaves, the next one takes away.
    partial = into / f".{package}.part"
    shutil.rmtree(partial, ignore_errors=True)
    content, made = partial / "content", partial / package
    try:
        made.mkdir(parents=True)
        _run("dpkg-deb", "-x", str(deb), str(content))
        place = Path(commonpath([sound.path.parent for sound in recordings(content)]))
        sounds = recordings(place)
        for sound in sounds:
            shutil.copyfile(sound.path, made / sound.name)
        shutil.copyfile(content / "usr/share/doc" / package / "copyright", made / "copyright")
        note = ORIGIN.format(
            package=package,
            version=_field(deb, "Version"),
            homepage=_field(deb, "Homepage"),
            sounds=len(sounds),
            file=deb.name,
            sha256=hashlib.sha256(deb.read_bytes()).hexdigest(),
            place=f"/{place.relative_to(content)}",
        )
        (made / "ORIGIN.md").write_text(note, encoding="utf-8")
        made.rename(into / package)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return into / package


def _fetch(package: str, folder: Path) -> Path:
    """The package's .deb, in `folder`."""
    by_hand = (
        f"download the .deb from https://packages.debian.org/{package} and name that file instead"
    )
    try:
        _run("apt-get", "download", package, folder=folder)
    except NotFoundError as error:
        raise NotFoundError(f"{error.message}\n{by_hand}", culprit=package) from None
    except InvalidInputError as error:
        raise NotFoundError(
            f"apt cannot fetch {package}: {error.message}\n"
            f"its lists may be old, `sudo apt-get update` renews them; or {by_hand}",
            culprit=package,
        ) from None
    return next(folder.glob("*.deb"))


def _field(deb: Path, name: str) -> str:
    return _run("dpkg-deb", "-f", str(deb), name).strip()


def _run(*command: str, folder: Path | None = None) -> str:
    """What a command prints; NotFoundError where there is none of its name."""
    try:
        # The names of packages are checked.
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise NotFoundError(
            f"{command[0]} is not there: Debian and Ubuntu have it; elsewhere install dpkg",
            culprit=command[0],
        ) from None
    if done.returncode:
        raise InvalidInputError(done.stderr.strip(), culprit=command[-1])
    return done.stdout


def main() -> None:
    """Every corpus that was asked for; what fails is named, and the others are fetched."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", nargs="*", default=PACKAGES, metavar="PACKAGE or FILE.deb")
    parser.add_argument("--into", type=Path, default=INTO, help="Folder for the corpora.")
    given = parser.parse_args()
    failed = False
    for wanted in given.corpora:
        try:
            folder = obtain(wanted, given.into)
        except (DemiurgeError, OSError) as error:
            failed = True
            sys.stderr.write(f"{wanted}: {error}\n")
        else:
            sys.stdout.write(f"{folder}: {len(recordings(folder))} sounds\n")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
