"""The device that `--device` names."""

from services.errors import InvalidInputError


def present(name: str) -> str:
    """That device, for `auto` a GPU if there is one; InvalidInputError if this machine has none."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            f"--device {name}: this machine offers no such device", culprit="--device"
        ) from error
    return name
