import pytest
import torch
from torch import distributed as processes
from torch import nn

from services.errors import ConfigurationError, SettingsMismatchError
from services.learning.world import ALONE, World, joined
from tests.unit.learning.processes import together


def meet(world: World) -> dict[str, object]:
    network = nn.BatchNorm1d(2)
    network.weight.grad = torch.tensor([1.0, 3.0]) * (world.rank + 1)
    world.average_gradients(network)
    averages = world.average({"a": torch.tensor(float(world.rank)), "b": torch.tensor(4.0)})
    world.wait()
    copied = nn.BatchNorm1d(1)
    copied.bias.data += 2 + world.rank
    copied.get_buffer("running_mean").add_(world.rank)
    world.copy_from_first(copied)
    return {
        "gradient": network.weight.grad.tolist(),
        "no gradient": network.bias.grad,
        "averages": {name: float(value) for name, value in averages.items()},
        "id": world.from_first(f"id{world.rank}"),
        "copied": (copied.bias.tolist(), copied.get_buffer("running_mean").tolist()),
        "first": world.is_first,
    }


def test_two_processes_average_what_they_found_and_agree() -> None:
    answers = together(2, meet)
    assert [answer.pop("first") for answer in answers] == [True, False]
    assert answers[0] == answers[1]
    assert answers[0] == {
        "gradient": [1.5, 4.5],
        "no gradient": None,
        "averages": {"a": 0.5, "b": 4.0},
        "id": "id0",
        "copied": ([2.0], [0.0]),
    }


def test_one_process_alone_gives_back_what_it_was_given() -> None:
    network = nn.Linear(1, 1)
    network(torch.ones(1, 1)).sum().backward()
    before = network.weight.grad
    assert before is not None
    ALONE.average_gradients(network)
    assert torch.equal(before, torch.ones(1, 1))
    assert ALONE.average({"loss": torch.tensor(2.0)}) == {"loss": torch.tensor(2.0)}
    assert ALONE.from_first("id") == "id"
    ALONE.copy_from_first(network)
    ALONE.wait()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as world:
        assert world == ALONE


def test_an_environment_that_names_half_of_a_world_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigurationError, match="torchrun"), joined():
        pass


def test_shares_of_a_batch_are_equal_and_cover_it() -> None:
    shares = [World(rank, 3).share(6) for rank in range(3)]
    assert [item for share in shares for item in share] == list(range(6))
    with pytest.raises(SettingsMismatchError, match="multiple of 3"):
        World(0, 3).share(7)


def test_each_process_of_several_has_its_own_gpu() -> None:
    assert World(rank=5, size=8, local_rank=1).device("cuda") == "cuda:1"
    assert ALONE.device("cuda") == "cuda"
    assert World(1, 2, 1).device("cpu") == "cpu"


@pytest.mark.parametrize(("device", "chosen"), [("cpu", []), ("auto", [0]), ("cuda", [0])])
def test_a_gpu_is_taken_only_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: str, chosen: list[int]
) -> None:
    backends = []
    taken: list[int] = []
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    begin = "init_process_group"
    monkeypatch.setattr(processes, begin, lambda name, timeout: backends.append(name))  # noqa: ARG005
    monkeypatch.setattr(processes, "destroy_process_group", lambda: None)
    with joined(device) as world:
        assert world == World(0, 2)
    assert taken == chosen
    assert ["nccl" in name for name in backends] == [bool(chosen)]
