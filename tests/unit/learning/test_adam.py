import pytest
import torch
from torch import nn

from services.learning.adam import adam


@pytest.mark.parametrize(("device", "fused"), [("cpu", None), ("cuda:1", True)])
def test_on_a_gpu_an_update_is_one_kernel_which_reads_the_scale_there(
    device: str, fused: bool | None
) -> None:
    optimizer = adam(nn.Linear(1, 1), 1e-3, torch.device(device), (0.5, 0.9))

    (group,) = optimizer.param_groups
    assert (group["fused"], group["lr"], group["betas"]) == (fused, 1e-3, (0.5, 0.9))
