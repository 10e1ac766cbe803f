from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from duologue.codecs.text import TextCodec
from duologue.models.llama_omni.adapter import ReadoutAdapter, ReadoutConfig, Speller
from duologue.models.llama_omni.listener import Heard


def bpe(merges: list[str], special: tuple[str, ...]) -> Tokenizer:
    """Byte-level BPE that knows letters and these merges."""
    pairs = [tuple(merge.split("|")) for merge in merges]
    names = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in pairs] + list(special)
    made = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture(scope="module")
def pair():
    """A listener that writes "Ġca" + "t" and "dog", and a language model that writes "cat", "Ġcat" and "d" + "og"."""
    listener = bpe(["c|a", "Ġ|ca", "o|g", "d|og", "Ġ|dog"], ())
    llm = bpe(["c|a", "ca|t", "Ġ|cat", "o|g", "Ġ|d"], ("<eot>", "<begin>", "<end>"))
    codec = TextCodec(
        llm,
        end_of_text=llm.token_to_id("<eot>"),
        turn_begin=llm.token_to_id("<begin>"),
        turn_end=llm.token_to_id("<end>"),
    )
    return listener, codec, Speller(listener, codec, vocab_size=listener.get_vocab_size())


def heard(listener: Tokenizer, *texts: str, doubt: float = 0.0) -> Heard:
    """These transcripts; the second guess of every piece is the letter "x"."""
    rows = [listener.encode(text).ids for text in texts]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)
    other = torch.full_like(ids, listener.token_to_id("x"))
    inside = (ids >= 0)[..., None]
    return Heard(
        ids_BT=ids,
        counts_B=torch.tensor([len(row) for row in rows]),
        states_BTD=torch.arange(ids.shape[1])[None, :, None].expand(len(rows), -1, 3).float() * inside,
        guess_ids_BTK=torch.stack([ids.clamp(min=0), other], -1),
        guess_probs_BTK=torch.tensor([1 - doubt, doubt]).expand(*ids.shape, 2) * inside,
    )


@pytest.mark.parametrize("text", [" cat", " cat cat dog", " a dog, a cat.", " x", " café dog"])
@pytest.mark.parametrize("opens", [True, False])
def test_a_sentence_heard_without_doubt_is_the_sentence_read(pair, text, opens):
    listener, codec, speller = pair
    spelt = speller(heard(listener, text), torch.tensor([opens]))
    wanted = codec.encode(text.removeprefix(" ") if opens else text)
    assert spelt.ids_BT[0].tolist() == wanted and spelt.counts_B.tolist() == [len(wanted)]
    embedding = torch.nn.Embedding(codec.tokenizer.get_vocab_size(), 4)
    read = embedding(torch.tensor(wanted))
    adapter = ReadoutAdapter(ReadoutConfig(state_dim=3, hidden_dim=4, llm_dim=4))
    assert torch.allclose(adapter(spelt, embedding)[0], read)


def test_doubt_is_kept_where_a_token_is_a_piece_and_only_there(pair):
    listener, codec, speller = pair
    spelt = speller(heard(listener, " cat a", doubt=0.4))
    names = [codec.tokenizer.id_to_token(index) for index in spelt.ids_BT[0].tolist()]
    assert names == ["cat", "Ġ", "a"]  # "Ġca" + "t" is one token: as it was written
    assert spelt.guess_probs_BTK[0, 0].tolist() == [1.0, 0.0]
    assert spelt.guess_probs_BTK[0, 2].tolist() == pytest.approx([0.6, 0.4])
    assert spelt.guess_ids_BTK[0, 2].tolist() == [spelt.ids_BT[0, 2].item(), codec.tokenizer.token_to_id("x")]
    pieces = listener.encode(" cat a").tokens
    assert spelt.states_BTD[0, :, 0].tolist() == [pieces.index("t"), pieces.index("Ġ"), len(pieces) - 1]


def test_a_guess_that_is_no_single_token_is_left_out(pair):
    listener, _, speller = pair
    found = heard(listener, " a", doubt=0.3)
    found.guess_ids_BTK[0, -1, 1] = listener.token_to_id("dog")  # "d" + "og" for the language model
    spelt = speller(found)
    assert spelt.guess_probs_BTK[0, -1].tolist() == pytest.approx([0.7, 0.0])


def test_rows_of_a_batch_are_as_each_alone(pair):
    listener, _, speller = pair
    texts = [" cat dog cat", " a", ""]
    both = speller(heard(listener, *texts, doubt=0.2))
    for row, text in enumerate(texts):
        count = int(both.counts_B[row])
        if not text:
            assert count == 0
            continue
        alone = speller(heard(listener, text, doubt=0.2))
        assert count == int(alone.counts_B[0])
        for name in ("ids_BT", "states_BTD", "guess_ids_BTK", "guess_probs_BTK"):
            assert torch.equal(getattr(both, name)[row, :count], getattr(alone, name)[0, :count]), name


@torch.no_grad()
def test_sharpness_turns_a_small_doubt_into_none(pair):
    listener, codec, speller = pair
    embedding = torch.nn.Embedding(codec.tokenizer.get_vocab_size(), 4)
    spelt = speller(heard(listener, " a", doubt=0.1))
    truth = embedding(spelt.ids_BT[0])
    off = [
        float(
            (
                ReadoutAdapter(ReadoutConfig(state_dim=3, hidden_dim=4, llm_dim=4, sharpness=s))(spelt, embedding)[0]
                - truth
            )
            .abs()
            .max()
        )
        for s in (1.0, 4.0)
    ]
    assert off[1] < 0.01 < off[0]
