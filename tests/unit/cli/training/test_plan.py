import pytest

from services.cli.training.plan import Plan


def times(plan: Plan, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if plan.logs_after(step)]


def test_losses_are_read_ten_times_from_one_validation_to_the_next() -> None:
    assert times(Plan("melgan", "error", steps=500), 50) == list(range(5, 51, 5))
    assert times(Plan("melgan", "error", steps=4), 4) == [1, 2, 3, 4]


def test_however_long_a_training_is_its_losses_are_read_every_hundred_steps() -> None:
    plan = Plan("melgan", "error", steps=400_000)
    assert times(plan, 1000) == list(range(100, 1001, 100))
    assert [step for step in range(1, 400_001) if plan.validates_after(step)] == list(
        range(40_000, 400_001, 40_000)
    )


@pytest.mark.parametrize(
    ("minutes", "until_validation"), [(20.0, 2.0), (60.0, 6.0), (60.0 * 24 * 7, 30.0)]
)
def test_time_alone_validates_ten_times_or_each_half_hour(
    minutes: float, until_validation: float
) -> None:
    assert Plan("melgan", "error", None, minutes=minutes).validation_minutes == until_validation


def test_where_steps_say_when_to_validate_the_clock_does_not() -> None:
    assert Plan("melgan", "error", 500, minutes=60).validation_minutes is None
    assert Plan("melgan", "error", None, every=5, minutes=60).validation_minutes is None
