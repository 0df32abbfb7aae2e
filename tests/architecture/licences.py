"""Writes docs/licences.md: the licence of every package that goes into an image.

Run as `python -m tests.architecture.licences` after a change of `constraints.txt`.
"""

import re
import tomllib
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from tests.architecture.test_extras import closure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "licences.md"
NOUNS = ("synth", "descriptor", "predictor", "query", "playback", "gateway")
# Where the metadata give no expression.
STATED = {
    "librosa": "ISC",
    "matplotlib": "PSF-based (matplotlib licence)",
    "wandb": "MIT",
}
# Libraries in C that wheels carry, by their own licences.
CARRIED = (
    (
        "soundfile",
        "libsndfile, in it mpg123 and LAME",
        "LGPL-2.1-or-later (LAME LGPL-2.0-or-later)",
    ),
    ("soundfile", "FLAC, Ogg, Vorbis, Opus", "BSD-3-Clause"),
    ("soxr", "libsoxr", "LGPL-2.1-or-later"),
    ("numpy, scipy", "OpenBLAS", "BSD-3-Clause"),
    ("numpy, scipy", "libgfortran of GCC", "GPL-3.0-or-later with the GCC runtime exception"),
    ("numpy, scipy", "libquadmath of GCC", "LGPL-2.1-or-later"),
    ("scikit-learn, torch", "libgomp of GCC", "GPL-3.0-or-later with the GCC runtime exception"),
)
HEAD = """\
# Licences of what the images carry

Written by `python -m tests.architecture.licences` from the metadata of the installed packages; a
test holds it complete and fresh, and refuses the GPL and the AGPL. Demiurge itself is under
Apache-2.0. What is in `train` is in the images of synth and predictor.

LGPL parts are libraries of their own that Python loads, and anybody may put others in their place.
Beside these, an image carries Python (PSF-2.0) and Debian's base packages, some of them under the
GPL (bash, coreutils), whose licences lie in its `/usr/share/doc`. A torch for CUDA brings NVIDIA's
libraries (packages `nvidia-*`, under NVIDIA's own licence) and triton (MIT): not listed here.

"""


def licence_of(name: str) -> str:
    """The licence that a package states of itself, as short as may be."""
    about = distribution(name).metadata
    if name in STATED:
        return STATED[name]
    expression = about["License-Expression"]
    if expression:
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    stated = (about["License"] or "").strip()
    # Some put the whole text there.
    return stated if 0 < len(stated) <= 40 else " AND ".join(classified)


def shipped() -> Mapping[str, set[str]]:
    """Every package of every image, with the nouns and `train` that bring it."""
    brought: dict[str, set[str]] = {}
    for extra in (*NOUNS, "train"):
        for name in closure(*_requirements(extra)):
            if not name.startswith(("nvidia-", "cuda-", "triton")):
                brought.setdefault(name, set()).add(extra)
    return brought


def _requirements(extra: str) -> list[str]:
    """What pyproject.toml asks for, whenever Demiurge itself was installed here last."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting, found = [extra], list(project["dependencies"])
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            own = re.fullmatch(r"demiurge\[(.+)\]", requirement)
            if own:
                waiting += own[1].split(",")
            else:
                found.append(requirement)
    return found


def page() -> str:
    """The whole page."""
    rows = []
    for name, nouns in sorted(shipped().items()):
        version = re.sub(r"\+.*", "", distribution(name).version)
        where = "all" if nouns >= {*NOUNS} else ", ".join(sorted(nouns))
        rows.append(f"| {name} | {version} | {licence_of(name)} | {where} |\n")
    table = "| package | version | licence | in |\n|---|---|---|---|\n" + "".join(rows)
    carried = "| wheel | carries | licence |\n|---|---|---|\n"
    carried += "".join(f"| {' | '.join(row)} |\n" for row in CARRIED)
    return f"{HEAD}{table}\n## Inside wheels\n\n{carried}"


if __name__ == "__main__":
    PAGE.write_text(page())
