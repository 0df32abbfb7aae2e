"""Prints what an extra of pyproject.toml needs, a requirement a line; `common` is what all need.

Images are built in layers of these lists, so that a change of code installs no library again.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

COMMON = "common"


def requirements(project: dict[str, Any], extra: str) -> list[str]:
    """The requirements of one extra, those of the extras that it names included, sorted.

    Raises KeyError for an extra that does not exist.
    """
    if extra == COMMON:
        return sorted(project["dependencies"])
    itself = re.compile(rf"{project['name']}\[(.+)\]")
    found: set[str] = set()
    for requirement in project["optional-dependencies"][extra]:
        named = itself.fullmatch(requirement)
        if named:
            for other in named[1].split(","):
                found.update(requirements(project, other))
        else:
            found.add(requirement)
    return sorted(found)


if __name__ == "__main__":
    declared = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(declared, sys.argv[2]))
