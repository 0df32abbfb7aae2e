"""The list of licences is complete and fresh, and holds nothing that we do not want."""

import re

import pytest

from tests.architecture import licences

# Copyleft for the whole program, unless an exception or a choice says otherwise.
_UNWANTED = re.compile(r"(?<![A-Za-z])A?GPL|GNU (Affero )?General|Affero|SSPL|Commons Clause")


def test_the_page_is_what_the_installed_packages_say() -> None:
    assert licences.PAGE.read_text() == licences.page(), "run python -m tests.architecture.licences"


def test_every_package_states_its_licence() -> None:
    assert not [name for name in licences.shipped() if not licences.licence_of(name)]


def test_nothing_is_under_the_gpl() -> None:
    found = {name: licences.licence_of(name) for name in licences.shipped()}
    assert not {name: stated for name, stated in found.items() if _UNWANTED.search(stated)}


@pytest.mark.parametrize(
    ("stated", "unwanted"),
    [
        ("GPL-3.0-or-later", True),
        ("MIT AND AGPL-3.0", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("LGPL-2.1-or-later", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
    ],
)
def test_the_gpl_is_known_by_its_names(stated: str, unwanted: bool) -> None:
    assert bool(_UNWANTED.search(stated)) is unwanted
