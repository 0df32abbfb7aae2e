import torch
from torch import nn

from services.learning.averaging import averaged, follow


def test_an_average_follows_slowly_and_leaves_the_network_alone() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network)
    with torch.no_grad():
        network.weight.fill_(0.0)
        average.weight.fill_(1.0)
    follow(average, network, 0.9, step=1000)
    assert torch.allclose(average.weight, torch.tensor([[0.9]]))
    assert torch.equal(network.weight, torch.zeros(1, 1))
    assert not average.weight.requires_grad
    assert network.weight.requires_grad


def test_in_the_beginning_the_drawn_weights_are_soon_forgotten() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network)
    with torch.no_grad():
        network.weight.fill_(0.0)
        average.weight.fill_(1.0)
    for step in range(1, 101):
        follow(average, network, 0.999, step)
    assert float(average.weight) < 1e-3


def test_buffers_are_those_of_the_network() -> None:
    network = nn.BatchNorm1d(1)
    average = averaged(network)
    network(torch.tensor([[1.0], [3.0]]))
    follow(average, network, 0.9, step=1)
    assert average.num_batches_tracked == 1
    assert torch.equal(average.running_mean, network.running_mean)  # type: ignore[arg-type]
