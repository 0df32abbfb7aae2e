import pytest
import torch

from services.errors import ConfigurationError, InvalidInputError
from services.learning.device import open_device

HERE = torch.cuda.device_count() if torch.cuda.is_available() else 0
BEYOND = f"cuda:{HERE}"


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert open_device("auto", "--device").type == ("cuda" if HERE else "cpu")
    assert open_device("cpu", "--device") == torch.device("cpu")


@pytest.mark.parametrize("name", [BEYOND, "cuda:1000"])
def test_a_number_beyond_the_machine_s_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^--device {name}: this machine offers") as told:
        open_device(name, "--device")
    assert told.value.culprit == "--device"
    with pytest.raises(ConfigurationError) as told_of_setting:
        open_device(name, "DEMIURGE_SYNTH_DEVICE", ConfigurationError)
    assert told_of_setting.value.culprit == "DEMIURGE_SYNTH_DEVICE"


@pytest.mark.parametrize("name", ["toaster", "meta", "", "cuda:", "cuda:-1", "cuda:01", "cpu:0"])
def test_other_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(InvalidInputError, match="not one of auto, cpu, cuda, cuda:1"):
        open_device(name, "--device")


@pytest.mark.skipif(not HERE, reason="this machine offers no CUDA device")
def test_each_gpu_of_the_machine_can_be_named() -> None:
    assert open_device(f"cuda:{HERE - 1}", "--device").index == HERE - 1
    assert open_device("cuda", "--device").type == "cuda"
