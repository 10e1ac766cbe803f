"""Steps of always the same shape, captured once as a CUDA graph and replayed: no launch of their many small kernels is
paid for. On another device they are called as they are.

A step that can be captured never looks at its numbers from the host (no `bool()`, `.tolist()`, `nonzero`): the `meta`
device, which has no numbers, runs such a step and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Step = Callable[..., Sequence[Tensor]]
_WARM_UP = 3  # calls before the capture: libraries make their workspaces in the first ones


class Graphs:
    """Captured steps by a key.

    What a step reads and writes beside its inputs (weights, caches) has to stay at its place in memory.
    """

    def __init__(self) -> None:
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, Sequence[Tensor], Sequence[Tensor]]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, key: Hashable, step: Step, inputs: Sequence[Tensor], *, idle: Sequence[Tensor]) -> Sequence[Tensor]:
        """The step's outputs; on a GPU they are overwritten by the next call with this key.

        Args:
            key: of the step, its shapes and the memory that it works on.
            idle: inputs with which the step leaves that memory as it is; it is called with them before it is captured.
        """
        if inputs[0].device.type != "cuda":
            return step(*inputs)
        if key not in self._captured:
            self._captured[key] = self._capture(step, idle)
        graph, places, outputs = self._captured[key]
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return outputs

    @staticmethod
    def _capture(step: Step, idle: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, Sequence[Tensor], Sequence[Tensor]]:
        places = [value.clone() for value in idle]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                step(*places)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = step(*places)
        return graph, places, outputs
