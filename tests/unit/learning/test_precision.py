import pytest
import torch
from torch import nn

from services.errors import InvalidInputError
from services.learning.precision import Compute, Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("compute", "dtype"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_passes_are_computed_in_the_chosen_format(compute: Compute, dtype: torch.dtype) -> None:
    precision = Precision(compute)
    with precision.autocast(CPU):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
    assert precision.scaler(CPU).is_enabled() == (compute == "fp16")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"int4.*one of float32, bf16, fp16"):
        Precision("int4")  # type: ignore[arg-type]


@pytest.mark.parametrize("tf32", [False, True])
def test_the_rounding_of_products_is_as_chosen_inside_and_as_before_outside(tf32: bool) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    with Precision(tf32=tf32).arithmetic():
        assert [flag.allow_tf32 for flag in flags] == [tf32, tf32]
    assert [flag.allow_tf32 for flag in flags] == before


# What torch says of itself when its compiler is loaded.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_network_is_compiled_only_when_asked() -> None:
    network = nn.Linear(2, 2)
    assert Precision().compiled(network) is network
    compiled = Precision(compile=True).compiled(network)
    assert next(compiled.parameters()) is network.weight
