"""Captured steps, where there is no GPU: called as they are."""

from __future__ import annotations

import pytest
import torch

from duologue.nn.graphs import Graphs


def test_without_a_gpu_the_step_is_called():
    graphs, memory = Graphs(), torch.zeros(2)

    def step(x: torch.Tensor) -> tuple[torch.Tensor]:
        memory.add_(x)
        return (x * 2,)

    (got,) = graphs.run("double", step, [torch.tensor([1.0, 2.0])], idle=[torch.zeros(2)])
    assert got.tolist() == [2.0, 4.0] and memory.tolist() == [1.0, 2.0] and not len(graphs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_captured_once_and_replayed():
    graphs, memory = Graphs(), torch.zeros(2, device="cuda")

    def step(x: torch.Tensor) -> tuple[torch.Tensor]:
        memory.add_(x)
        return (x * 2,)

    for number in (1.0, 2.0, 3.0):
        x = torch.full((2,), number, device="cuda")
        (got,) = graphs.run("double", step, [x], idle=[torch.zeros_like(x)])
        assert got.tolist() == [2 * number] * 2
    assert memory.tolist() == [6.0, 6.0] and len(graphs) == 1
