"""The device that a setting or a flag names: auto, cpu, cuda, or cuda:1 for one of several."""

import re

import torch

from services.errors import DemiurgeError, InvalidInputError

_NAME = re.compile(r"cpu|cuda(?::(0|[1-9]\d*))?")


def open_device(
    name: str, culprit: str, refusal: type[DemiurgeError] = InvalidInputError
) -> torch.device:
    """That device; for `auto` a GPU if there is one.

    Raises `refusal`, naming `culprit` (the flag or variable), for another name, and for a device
    that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    known = _NAME.fullmatch(name)
    if not known:
        raise refusal(f"{culprit} {name}: not one of auto, cpu, cuda, cuda:1", culprit=culprit)
    if name != "cpu" and int(known[1] or 0) >= count:
        there = ", ".join(f"cuda:{number}" for number in range(count)) or "no CUDA device"
        raise refusal(f"{culprit} {name}: this machine offers {there}", culprit=culprit)
    return torch.device(name)


def device_memory(device: torch.device) -> dict[tuple[str, str], float]:
    """Bytes of a GPU by (device, kind): allocated and reserved by this process, and total.

    Empty for a CPU, and before the GPU's first use. From any thread.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    name = f"cuda:{device.index or 0}"
    return {
        (name, "allocated"): torch.cuda.memory_allocated(name),
        (name, "reserved"): torch.cuda.memory_reserved(name),
        (name, "total"): torch.cuda.get_device_properties(name).total_memory,
    }
