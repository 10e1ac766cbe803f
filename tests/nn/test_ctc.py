import itertools

import pytest
import torch

from duologue.errors import ShapeError
from duologue.nn.ctc import align, collapse, init_collapse

ALL = torch.ones(3, dtype=torch.bool)


def by_hand(ids: list[int], blank: int) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(ids) if symbol != blank]


def test_collapse_merges_repeats_and_drops_blanks():
    ids_BT = torch.tensor([[1, 1, 3, 1, 2, 2, 3], [3, 3, 3, 3, 3, 3, 3], [0, 0, 0, 1, 0, 3, 0]])
    units_BT, counts_B, steps_BT = collapse(ids_BT, init_collapse(3), ALL, blank=3)
    rows, steps = ([row[:count].tolist() for row, count in zip(x, counts_B, strict=True)] for x in (units_BT, steps_BT))
    assert rows == [[1, 1, 2], [], [0, 1, 0, 0]]
    assert steps == [[0, 3, 4], [], [0, 3, 4, 6]]


def test_ragged_pieces_collapse_as_the_whole():
    torch.manual_seed(0)
    ids_BT = torch.randint(3, (3, 40))
    state, rows, done_B = init_collapse(3), [[], [], []], torch.zeros(3, dtype=torch.int64)
    while (done_B < 40).any():
        steps_B = torch.minimum(torch.randint(5, (3,)), 40 - done_B)
        live_B = torch.rand(3) < 0.8
        piece = torch.stack([ids.roll(-int(done))[:5] for ids, done in zip(ids_BT, done_B, strict=True)])
        units_BT, counts_B, _ = collapse(piece, state, live_B, blank=2, steps_B=steps_B)
        for row, units, count in zip(rows, units_BT, counts_B, strict=True):
            row += units[:count].tolist()
        done_B += torch.where(live_B, steps_B, 0)
    assert rows == [by_hand(ids, 2) for ids in ids_BT.tolist()]


def brute_force(log_probs_TV: torch.Tensor, targets: list[int], blank: int) -> tuple[float, list[int]]:
    """The best of all paths that spell the targets, and the step at which each target first appears."""
    best = (float("-inf"), [])
    for path in itertools.product(range(log_probs_TV.shape[1]), repeat=len(log_probs_TV)):
        if by_hand(list(path), blank) == targets:
            score = sum(float(log_probs_TV[step, symbol]) for step, symbol in enumerate(path))
            first = [t for t, s in enumerate(path) if s != blank and (t == 0 or path[t - 1] != s)]
            best = max(best, (score, first))
    return best


@pytest.mark.parametrize("targets", [[0], [0, 1], [1, 1], [0, 1, 0], [1, 1, 0], []])
def test_alignment_is_the_best_of_all_paths(targets):
    torch.manual_seed(len(targets))
    log_probs_BTV = torch.randn(4, 6, 3).mul(2).log_softmax(-1)
    targets_BU = torch.tensor([targets + [2] * (4 - len(targets))] * 4)
    first_BU = align(log_probs_BTV, targets_BU, torch.full((4,), 6), torch.full((4,), len(targets)), blank=2)
    for row in range(4):
        _, want = brute_force(log_probs_BTV[row], targets, blank=2)
        assert first_BU[row].tolist() == want + [-1] * (4 - len(targets))


def test_alignment_of_ragged_rows_ignores_padding():
    torch.manual_seed(1)
    log_probs_BTV = torch.randn(3, 7, 3).log_softmax(-1)
    targets_BU = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 1, 1]])
    steps_B, counts_B = torch.tensor([7, 5, 4]), torch.tensor([3, 2, 3])
    first_BU = align(log_probs_BTV, targets_BU, steps_B, counts_B, blank=2)
    for row in (0, 1):
        steps, count = int(steps_B[row]), int(counts_B[row])
        _, want = brute_force(log_probs_BTV[row, :steps], targets_BU[row, :count].tolist(), blank=2)
        assert first_BU[row, :count].tolist() == want
    assert first_BU[1, 2] == -1
    assert first_BU[2].tolist() == [-1, -1, -1]  # 1 1 1 needs five steps


def test_alignment_agrees_with_the_greedy_decoder_where_the_path_is_clear():
    path = torch.tensor([2, 0, 0, 2, 1, 1, 2, 1])
    log_probs_BTV = torch.nn.functional.one_hot(path, 3).float().mul(9).log_softmax(-1)[None]
    first_BU = align(log_probs_BTV, torch.tensor([[0, 1, 1]]), torch.tensor([8]), torch.tensor([3]), blank=2)
    assert first_BU.tolist() == [[1, 4, 7]]


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="do not fit"):
        align(torch.zeros(1, 4, 3), torch.zeros(1, 2, dtype=torch.long), torch.tensor([5]), torch.tensor([2]), blank=2)
