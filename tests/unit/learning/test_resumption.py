import pytest

from services.errors import SettingsMismatchError
from services.learning.resumption import refuse_other_settings

STORED = {"batch_size": 8, "steps": 100, "generator": {"ngf": 16, "ratios": [8, 8, 4]}}


def test_the_same_settings_and_those_that_may_differ_are_let_through() -> None:
    own = STORED | {"steps": 200, "generator": {"ngf": 16, "ratios": (8, 8, 4)}}
    refuse_other_settings("MelGAN", STORED, own, besides=["steps"])
    with pytest.raises(SettingsMismatchError, match=r"steps was 100 and is 200$"):
        refuse_other_settings("MelGAN", STORED, own)


def test_every_other_setting_is_named_with_both_values() -> None:
    own = {"batch_size": 4, "steps": 100, "generator": {"ngf": 32, "ratios": (8, 8, 4)}}
    with pytest.raises(SettingsMismatchError) as refusal:
        refuse_other_settings("MelGAN", STORED, own)
    assert "batch_size was 8 and is 4" in refusal.value.message
    assert "generator.ngf was 16 and is 32" in refusal.value.message
    assert "steps" not in refusal.value.message
    assert refusal.value.culprit == "batch_size"


def test_a_setting_that_was_not_known_then_is_named() -> None:
    with pytest.raises(SettingsMismatchError, match=r"averaging was None and is 0\.9"):
        refuse_other_settings("MelGAN", STORED, STORED | {"averaging": 0.9})
