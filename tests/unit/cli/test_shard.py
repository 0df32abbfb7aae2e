import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import BadParameter

from services.cli.shard import WHOLE, Shard, shard

COUNTS = st.integers(1, 40)


@given(st.lists(st.integers()), COUNTS)
def test_shards_share_out_every_item_once(items: list[int], count: int) -> None:
    shares = [Shard(index, count).share(items) for index in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.text(), COUNTS)
def test_every_name_is_one_shards(name: str, count: int) -> None:
    assert sum(Shard(index, count).holds(name) for index in range(count)) == 1


def test_names_are_spread_over_shards() -> None:
    names = [f"take {number}.wav" for number in range(1000)]
    held = [sum(Shard(index, 4).holds(name) for name in names) for index in range(4)]
    assert min(held) > 200


def test_a_name_stays_its_shards_in_every_release() -> None:
    held = [name for name in ("a.wav", "b.wav", "c.wav", "d.wav") if Shard(1, 2).holds(name)]
    assert held == ["b.wav", "c.wav"]


def test_without_shards_all_is_ones_own() -> None:
    assert WHOLE.share("abc") == "abc"
    assert WHOLE.holds("a")


def test_a_shard_is_read() -> None:
    assert shard("3/4") == Shard(3, 4)


@pytest.mark.parametrize(
    "text", ["", "4/4", "0/0", "1", "-1/2", "a/b", "1/2/3", "0/100001", "1 /2"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match="0/4 to 3/4"):
        shard(text)
