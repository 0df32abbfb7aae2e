from itertools import pairwise

import pytest

from services.learning.schedule import learning_rate


def test_a_constant_rate_stays() -> None:
    assert {learning_rate(s, 3e-4, "constant", steps=10, floor=0.1) for s in (0, 5, 99)} == {3e-4}


def test_a_cosine_falls_from_the_rate_to_its_floor_and_stays_there() -> None:
    rates = [learning_rate(s, 1.0, "cosine", steps=10, floor=0.1) for s in range(15)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.55)
    assert all(earlier > later for earlier, later in pairwise(rates[:11]))
    assert rates[10:] == pytest.approx([0.1] * 5)
