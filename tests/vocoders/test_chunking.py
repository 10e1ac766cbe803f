"""Chunked vocoding with a vocoder that can be computed by hand, prosody and a lopsided reach."""

import pytest
import torch
from torch import Tensor
from vocoding import say

from duologue.errors import ShapeError
from duologue.vocoders.chunking import ChunkState, Reach, init_chunks, vocode

ALL = torch.ones(2, dtype=torch.bool)


class Sums:
    """A frame's samples are the loudness of the frames it sees; a unit is 1 + (its right neighbour % 3) frames long."""

    hop, num_units = 2, 50
    reach = Reach(before=3, after=1, neighbours=1)

    def init_state(self, slots: int) -> ChunkState:
        return init_chunks(self.reach, slots, prosody=2)

    def __call__(self, units_BT, counts_B, state, live_B, final_B, prosody_BTP=None) -> tuple[Tensor, Tensor]:
        return vocode(self, units_BT, counts_B, state, live_B, final_B, prosody_BTP)

    def frames(self, units_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
        return 1 + torch.cat([units_T[1:], units_T[:1] * 0]) % 3

    def render(self, units_T: Tensor, frames_T: Tensor, prosody_TP: Tensor | None) -> Tensor:
        loud_T = units_T.float() if prosody_TP is None else units_T + prosody_TP[:, 0]
        loud_F = loud_T.repeat_interleave(frames_T)
        padded_F = torch.nn.functional.pad(loud_F, (3, 1))
        return padded_F.unfold(0, 5, 1).sum(1).repeat_interleave(2)


@pytest.mark.parametrize("prosody_BTP", [None, torch.rand(2, 30, 2)], ids=["units", "prosody"])
@pytest.mark.parametrize("cut", [[1] * 30, [7, 7, 7, 9], [29, 1]])
def test_chunks_equal_the_whole(cut, prosody_BTP):
    torch.manual_seed(0)
    units_BT = torch.randint(50, (2, 30))
    for slot, audio_N in enumerate(say(Sums(), units_BT, cut, prosody_BTP).audio):
        prosody_TP = None if prosody_BTP is None else prosody_BTP[slot]
        frames_T = Sums().frames(units_BT[slot], None)
        torch.testing.assert_close(audio_N, Sums().render(units_BT[slot], frames_T, prosody_TP))


def test_samples_come_as_soon_as_they_are_settled():
    state = init_chunks(Sums.reach, 1, prosody=0)
    given = []
    for unit in (4, 3, 5):  # lengths 1 (3 % 3 = 0), 3 (5 % 3 = 2), unknown
        _, samples_B = vocode(Sums(), torch.tensor([[unit]]), torch.tensor([1]), state, ALL[:1], ~ALL[:1])
        given.append(int(samples_B))
    assert given == [0, 0, 6]  # 1 + 3 frames are known, the last waits for one to its right


def test_a_stream_has_prosody_throughout_or_never():
    state, units_BT = init_chunks(Sums.reach, 1, prosody=2), torch.tensor([[1, 2]])
    vocode(Sums(), units_BT, torch.tensor([2]), state, ALL[:1], ~ALL[:1], torch.zeros(1, 2, 2))
    with pytest.raises(ShapeError, match="in all of its chunks or in none"):
        vocode(Sums(), units_BT, torch.tensor([2]), state, ALL[:1], ~ALL[:1])
