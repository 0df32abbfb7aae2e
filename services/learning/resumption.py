"""Whether a stored state belongs to the training that wants to go on from it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from services.errors import SettingsMismatchError


def refuse_other_settings(
    family: str,
    stored: Mapping[str, Any],
    own: Mapping[str, Any],
    *,
    besides: Collection[str] = (),
) -> None:
    """Raises SettingsMismatchError naming every setting that is not as it was stored.

    Both are nested mappings of plain values, as `dataclasses.asdict` gives them; those named in
    `besides` may differ. A sequence is equal to another of the same items, whatever its type.
    """
    there, here = dict(_flat(stored)), dict(_flat(own))
    names = [name for name in there | here if name not in besides]
    others = [name for name in names if there.get(name) != here.get(name)]
    if others:
        told = "; ".join(f"{n} was {there.get(n)!r} and is {here.get(n)!r}" for n in others)
        raise SettingsMismatchError(
            f"{family}: the stored training had other settings: {told}", culprit=others[0]
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
