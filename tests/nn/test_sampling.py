import pytest
import torch

from duologue.nn.sampling import best, draw, luck, penalise, repeats, uniform


def drawn(
    logits_V: torch.Tensor, count: int, *, temperature: float, top_k: int, noise: int | None = None
) -> torch.Tensor:
    """`count` independent draws of one row's scores."""
    size = noise or top_k
    noise_RN = uniform(torch.arange(count), torch.arange(size).expand(count, -1))
    of_R = torch.ones(count)
    luck_RKN = luck(noise_RN[:, None], temperature_R=of_R * temperature, top_k_R=of_R * top_k)
    return draw(logits_V.expand(count, -1), luck_RKN[:, 0], of_R > temperature * 1e6)


def test_random_numbers_are_even_and_unlike_for_neighbours():
    u_RN = uniform(torch.arange(400), torch.arange(500).expand(400, -1))
    assert u_RN.min() > 0 and u_RN.max() < 1
    assert torch.histc(u_RN, 10, 0, 1).div(len(u_RN.flatten())).sub(0.1).abs().max() < 0.003
    for a, b in ((u_RN[1:], u_RN[:-1]), (u_RN[:, 1:], u_RN[:, :-1])):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.01


def test_draws_follow_the_scores():
    logits_V = torch.tensor([0.3, 2.0, -1.0, 1.0, 0.0])
    ids = drawn(logits_V, 40_000, temperature=0.7, top_k=5)
    share_V = torch.bincount(ids, minlength=5) / len(ids)
    torch.testing.assert_close(share_V, (logits_V / 0.7).softmax(0), rtol=0, atol=0.01)


def test_top_k_leaves_out_the_rest_and_more_noise_changes_nothing():
    logits_V = torch.tensor([0.3, 2.0, -1.0, 1.0, 0.0])
    ids = drawn(logits_V, 2000, temperature=1.5, top_k=2)
    assert set(ids.tolist()) == {1, 3}
    assert torch.equal(ids, drawn(logits_V, 2000, temperature=1.5, top_k=2, noise=5))
    assert set(drawn(logits_V, 50, temperature=0.0, top_k=5).tolist()) == {1}


def test_a_penalty_counts_each_token_once():
    logits_RV = torch.tensor([[2.0, -2.0, 1.0], [2.0, -2.0, 1.0]])
    got = penalise(logits_RV, torch.tensor([[0, 0, 1], [-1, 2, -1]]), torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(got, torch.tensor([[1.0, -4.0, 1.0], [2.0, -2.0, 0.25]]))


def test_what_would_be_said_again_is_found():
    said = torch.tensor([[1, 2, 3, 4, 1, 2, 0, 0], [1, 2, 3, 1, 2, 5, 1, 2], [1, 2, 1, 2, 0, 0, 0, 0]])
    rows, tokens = repeats(said, torch.tensor([6, 8, 2]), length=3)
    assert sorted(zip(rows.tolist(), tokens.tolist(), strict=True)) == [(0, 3), (1, 3), (1, 5)]
    rows, tokens = repeats(said, torch.tensor([6, 8, 4]), length=2)
    assert (2, 1) in zip(rows.tolist(), tokens.tolist(), strict=True)  # an overlap with itself
    for length, counts in ((9, [8, 8, 8]), (3, [0, 1, 2])):
        assert not len(repeats(said, torch.tensor(counts), length=length)[0])


def test_a_circle_is_left():
    said = torch.zeros(1, 40, dtype=torch.int64)
    for count in range(40):
        scores = -torch.arange(9.0)[None]
        scores[0, (int(said[0, count - 1]) + 1) % 2 if count else 0] = 2  # 0 1 0 1 0 1 ...
        scores[repeats(said, torch.tensor([count]), length=4)] = -torch.inf
        said[0, count] = scores.argmax()
    assert said[0, :6].tolist() == [0, 1, 0, 1, 0, 0]
    grams = [tuple(gram) for gram in said[0].unfold(0, 4, 1).tolist()]
    assert len(set(grams)) == len(grams)


@pytest.mark.parametrize(("total", "count"), [(32_000, 25), (2048, 250), (6400, 25), (6401, 25), (64, 1)])
def test_the_best_of_many_are_those_of_topk(total, count):
    scores_RV = torch.randn(3, total, generator=torch.Generator().manual_seed(0))
    scores_RV[1] = -scores_RV[1].sort().values.abs()  # the best ones side by side
    expected, found = scores_RV.topk(count), best(scores_RV, count)
    assert torch.equal(found[0], expected.values) and torch.equal(found[1], expected.indices)


def test_the_best_with_scores_that_are_ruled_out():
    scores_RV = torch.full((2, 32_000), float("-inf"))
    scores_RV[0, [5, 31_999]] = torch.tensor([1.0, 2.0])
    (values_RN, places_RN) = best(scores_RV, 25)
    assert places_RN[0, :2].tolist() == [31_999, 5] and values_RN[:, 2:].isinf().all()
    assert all(len(set(row)) == 25 for row in places_RN.tolist())
