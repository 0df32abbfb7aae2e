"""What any file of the repository must keep to."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES = 400
# Each pattern is written so that it does not match itself here.
MACHINE_PATHS = re.compile(r"(?<![\w.~}-])/(?:work|root|home)/\w|/opt/(?:wheels|pypi)")
PACKAGE_REGISTRIES = re.compile(r"pypi\.org|python[h]osted|download\.pytorch")
UNFINISHED = re.compile(
    r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b|NotImplemented[E]rror|type: ignore$", re.MULTILINE
)


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def written_here(*patterns: str) -> list[Path]:
    """Tracked files but for generated code."""
    return [path for path in tracked(*patterns) if ROOT / "protos/gen" not in path.parents]


def offenders(files: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """`file:line` of every match; files that are not UTF-8 text are passed over."""
    found = []
    for path in files:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match.group()}")
    return found


def test_no_module_is_longer_than_a_reader_likes() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in written_here("*.py")}
    assert len(lengths) > 10
    assert {path for path, length in lengths.items() if length > MOST_LINES} == set()


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, PACKAGE_REGISTRIES], ids=["paths", "hosts"])
def test_no_file_names_one_machine_or_one_registry(pattern: re.Pattern[str]) -> None:
    assert offenders(tracked(), pattern) == []


def test_nothing_is_left_unfinished() -> None:
    assert offenders(written_here("*.py"), UNFINISHED) == []


def test_the_patterns_find_what_they_look_for() -> None:
    folder, host, mark = "/" + "root/x", "pypi" + ".org", "# TO" + "DO"
    assert MACHINE_PATHS.search(f"cd {folder}")
    assert not MACHINE_PATHS.search("https://example.org/work/x")
    assert PACKAGE_REGISTRIES.search(f"https://{host}/simple")
    assert UNFINISHED.search(mark)


def test_no_file_is_tracked_that_git_ignores() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listing == ""
