import torch

from duologue.nn.sampling import draw, penalise, uniform


def drawn(
    logits_V: torch.Tensor, count: int, *, temperature: float, top_k: int, noise: int | None = None
) -> torch.Tensor:
    """`count` independent draws of one row's scores."""
    size = noise or top_k
    noise_RN = uniform(torch.arange(count), torch.arange(size).expand(count, -1))
    of_R = torch.ones(count)
    return draw(logits_V.expand(count, -1), temperature_R=of_R * temperature, top_k_R=of_R * top_k, noise_RN=noise_RN)


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
