"""A computation of fixed shapes, recorded once as a CUDA graph and replayed.

https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: launching a chunk's hundred small
kernels one by one can take longer than they do.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Before it is recorded: libraries choose their algorithms, and take their memory, at first use.
WARM_UPS = 3


class CapturedChunk:
    """`compute` of tensors that are all shaped like `examples`.

    Whatever memory `compute` keeps must be its own: a replay writes to the same places again.
    """

    def __init__(self, compute: Callable[..., Tensor], *examples: Tensor) -> None:
        device = examples[0].device
        self._inputs = [example.clone() for example in examples]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    compute(*self._inputs)
            torch.cuda.current_stream(device).wait_stream(stream)
            # Whoever takes the samples of the chunk before, in another thread, may go on.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = compute(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The answer, which is the caller's to keep."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output.clone()
