"""Run inside an image by its Python: prints what there is, as JSON."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path

COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "go", "nvcc")
INSTALLERS = ("pip", "pip3", "easy_install", "uv", "conda", "apt-listchanges")
MODULES = ("pip", "ensurepip", "torch", "librosa", "qdrant_client", "qdrant_edge", "matplotlib")
# What has no place in an image, by name, where the project's own things are.
STRANGE = re.compile(
    r"^(\.git|tests?|golden|\.env|secrets?|\.dockerignore|Dockerfile|.*\.(key|whl))$"
)
OWN = ("/opt/demiurge/lib/python3.11/site-packages/services", "/var/lib/demiurge", "/scratch")
SKIPPED = ("/proc", "/sys", "/dev")


def walk():
    """Every path of the image."""
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if f"{folder.rstrip('/')}/{name}" not in SKIPPED]
        yield from (f"{folder.rstrip('/')}/{name}" for name in (*folders, *files))


def written_by_anyone(path):
    """Whether others may write there, and in a folder also to each other's files."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode) or not mode & stat.S_IWOTH:
        return False
    return not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def lacking(noun):
    """Requirements of the noun's extra that are not installed."""
    wanted = importlib.metadata.requires("demiurge") or []
    names = [
        re.match(r"[\w.-]+", line)[0]
        for line in wanted
        if "extra ==" not in line or re.search(rf"extra == ['\"]{noun}['\"]", line)
    ]
    installed = {normal(name) for name in versions()}
    return [name for name in names if normal(name) not in installed]


def normal(name):
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions():
    """What is installed."""
    return {found.name: found.version for found in importlib.metadata.distributions()}


paths = list(walk())
sys.stdout.write(
    json.dumps(
        {
            "identity": [os.getuid(), os.getgid(), *os.getgroups()],
            "versions": {normal(name): version for name, version in versions().items()},
            "lacking": lacking(sys.argv[1]),
            "programs": [name for name in COMPILERS + INSTALLERS if shutil.which(name)],
            "modules": [name for name in MODULES if importlib.util.find_spec(name)],
            "anyone": [path for path in paths if written_by_anyone(path)],
            "setuid_of_ours": [
                path
                for path in paths
                if path.startswith("/opt")
                and os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID)
            ],
            "strange": [
                path for path in paths if path.startswith(OWN) and STRANGE.match(Path(path).name)
            ],
            "owned": [
                path
                for path in paths
                if os.lstat(path).st_uid == os.getuid()
                and not path.startswith(("/scratch", "/var/lib/demiurge", "/var/cache/numba"))
            ],
            "caches": [path for path in paths if "/.cache/" in path or path.endswith(".whl")],
        }
    )
)
