"""The paper's form of listening: what it writes, alone and in a batch, and the whole family with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_omni import codec, tiny_omni

from duologue.codecs.text import TextCodec, byte_level_bpe
from duologue.errors import ConfigError, PartError
from duologue.models.llama_omni.adapter import ReadoutAdapter, ReadoutConfig
from duologue.models.llama_omni.ctc_listener import CtcConfig, CtcListener, CtcListenerConfig
from duologue.models.llama_omni.listening import CtcHearing, Ear, EarOptions
from duologue.models.whisper import WhisperConfig
from duologue.nn.quant import quantize

SHAPE = CtcListenerConfig(
    whisper=WhisperConfig(dim=16, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=0, max_source=200),
    ctc=CtcConfig(
        encoder_dim=16, stack=4, dim=12, layers=2, kernel=3, ffn_dim=24, llm_dim=16, vocab_size=259, candidates=4
    ),
)
TICK = 1280


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def listener(*, blank: float = 1.0) -> CtcListener:
    """Random weights, large enough that its choices differ from step to step."""
    torch.manual_seed(3)
    made = CtcListener(SHAPE)
    for name, parameter in made.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.6)
    made.ctc.blank.bias.fill_(blank)
    made.ctc.bias_V[256:] = -1e4
    return made.eval()


def table() -> torch.nn.Embedding:
    torch.manual_seed(4)
    return torch.nn.Embedding(259, 16)


def sounds(seconds: float, seed: int) -> torch.Tensor:
    return torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(seed)) * 0.1


def ctc_omni(*, mode: str = "states", longest: float = 1.5):
    model, words = tiny_omni(), codec()
    adapter = ReadoutAdapter(ReadoutConfig(state_dim=12, hidden_dim=8, llm_dim=16))
    torch.nn.init.normal_(adapter.down.weight, std=0.3)
    hearing = CtcHearing(listener(), adapter, words, mode=mode)
    model.ear = Ear(hearing, EarOptions(longest=longest, again=0.3, pieces=32, turn_pieces=200))
    return model


def ask(model, state, slot: int, audio: torch.Tensor):
    """One turn in one slot; the others idle on garbage meanwhile."""
    slots = len(state.phase_B)
    live_B = torch.arange(slots) == slot
    for tick in torch.nn.functional.pad(audio, (0, -len(audio) % TICK)).split(TICK):
        audio_BN = torch.randn(slots, TICK)
        audio_BN[slot] = tick
        model.listen(state, audio_BN, live_B)
    model.end_turn(state, live_B)
    ids, speech = [], []
    for _ in range(2000):
        frame = model.speak(state, live_B)
        ids += [token for token in frame.ids_BT[slot].tolist() if token >= 0]
        speech.append(frame.audio_BN[slot, : int(frame.samples_B[slot])])
        if frame.done_B[slot]:
            return model.heard(state, slot), ids, torch.cat(speech)
    raise AssertionError("the answer does not end")


def test_a_row_is_heard_as_if_alone():
    ears, embedding = listener(), table()
    audio_BN = torch.stack([sounds(1.2, 1), sounds(1.2, 2), sounds(1.2, 3)])
    samples_B = torch.tensor([19_200, 9_000, 13_333])  # groups of steps that are not full among them
    together = ears.hear(audio_BN, samples_B, embedding)
    for row, samples in enumerate(samples_B.tolist()):
        alone = ears.hear(audio_BN[row : row + 1, :samples], samples_B[row : row + 1], embedding)
        count = int(alone.counts_B[0])
        assert count > 1 and together.ids_BT[row, :count].tolist() == alone.ids_BT[0].tolist()
        assert (together.ids_BT[row, count:] == -1).all() and (together.states_BTD[row, count:] == 0).all()
        torch.testing.assert_close(together.states_BTD[row, :count], alone.states_BTD[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.guess_probs_BTK[row, :count], alone.guess_probs_BTK[0])


@pytest.mark.parametrize("blank", [-20.0, 1.0])
def test_repeats_are_merged_and_their_states_averaged(blank):
    """Against the definition, step by step; without a blank runs of one token are common."""
    ears, embedding = listener(blank=blank).ctc, table()
    torch.manual_seed(1)
    encoded_BTD = torch.randn(1, 120, 16).repeat_interleave(3, dim=1)[:, :203] * 0.5
    states_BSD, steps_B = ears(encoded_BTD, torch.tensor([203]))
    assert steps_B.tolist() == [51]
    scores = torch.cat([ears.scores(states_BSD, embedding), ears.blank_scores(states_BSD)[..., None]], dim=-1)
    runs: list[tuple[int, list[torch.Tensor]]] = []
    last = 259
    for token, state in zip(scores[0].argmax(-1).tolist(), states_BSD[0], strict=True):
        if token != 259:
            if token != last:
                runs.append((token, []))
            runs[-1][1].append(state)
        last = token
    heard = ears.write(encoded_BTD, torch.tensor([203]), embedding)
    assert max(len(states) for _, states in runs) > 1
    assert heard.ids_BT[0].tolist() == [token for token, _ in runs]
    torch.testing.assert_close(heard.states_BTD[0], torch.stack([torch.stack(states).mean(0) for _, states in runs]))
    torch.testing.assert_close(heard.guess_probs_BTK.sum(-1), torch.ones(1, len(runs)))


def test_scores_are_inner_products_with_the_centred_embeddings():
    ears, embedding = listener().ctc, table()
    ears.calibrate(torch.randn(20, 16), 0.5 * embedding.weight, never=[5])
    embedding.weight.mul_(0.5)
    states_BSD = torch.randn(2, 5, 12)
    centred = embedding.weight - embedding.weight.mean(0)
    expected = ears.output(states_BSD) @ (0.1 * centred / centred.square().mean().sqrt()).T + ears.bias_V
    torch.testing.assert_close(ears.scores(states_BSD, embedding), expected, atol=1e-4, rtol=1e-4)
    assert (expected[..., 5] < -1e3).all()
    some = torch.tensor([7, 200, 3])
    torch.testing.assert_close(ears.scores(states_BSD, embedding, some), expected[..., some], atol=1e-4, rtol=1e-4)


def test_a_table_in_int8_is_heard_with_as_well():
    ears, model = listener(), torch.nn.Sequential(table())
    states_BSD = torch.randn(1, 30, 12)
    exact = ears.ctc.scores(states_BSD, model[0])
    quantize(model, activations="int16")
    rounded = ears.ctc.scores(states_BSD, model[0])
    assert 0 < float((rounded - exact)[..., :256].abs().max()) < 0.02 * float(exact[..., :256].std() * 4)
    assert ears.hear(sounds(1.2, 1)[None], torch.tensor([19_200]), model[0]).counts_B[0] > 1


def test_nothing_said_is_nothing_heard():
    heard = listener(blank=1e6).hear(sounds(1.0, 1)[None], torch.tensor([16_000]), table())
    assert heard.counts_B.tolist() == [0] and heard.ids_BT.shape == (1, 0) and heard.states_BTD.shape == (1, 0, 12)
    model = ctc_omni()
    model.ear.hearing.listener.ctc.blank.bias.fill_(1e6)
    assert ask(model, model.init_state(1), 0, sounds(0.8, 1))[:2] == ("", [])


@pytest.mark.parametrize("mode", ["states", "text"])
def test_a_conversation_is_the_same_alone_and_beside_others(mode):
    model = ctc_omni(mode=mode)
    alone, crowd = model.init_state(1), model.init_state(3)
    ask(model, crowd, 0, sounds(0.6, 9))
    for seed in (1, 2):  # two turns
        want, got = ask(model, alone, 0, sounds(1.0, seed)), ask(model, crowd, 2, sounds(1.0, seed))
        assert got[:2] == want[:2] and want[0] and want[1]
        torch.testing.assert_close(got[2], want[2], atol=2e-3, rtol=1e-3)


def test_states_and_words_are_two_ways_to_hear_the_same():
    audio_BN, parts = sounds(1.2, 1)[None], {}
    for mode in ("states", "text"):
        model = ctc_omni(mode=mode)
        parts[mode] = model.ear.hearing.hear(
            audio_BN, torch.tensor([19_200]), None, torch.tensor([True]), model.llm, hasty=False
        )
    assert torch.equal(parts["states"].pieces_BT, parts["text"].pieces_BT)
    assert torch.equal(parts["text"].embeddings_BTD, model.llm.embedding(parts["text"].pieces_BT))
    assert parts["states"].embeddings_BTD.shape == parts["text"].embeddings_BTD.shape
    assert not torch.allclose(parts["states"].embeddings_BTD, parts["text"].embeddings_BTD, atol=0.1)


def test_a_long_question_goes_on_with_a_space():
    """Read in segments; a word that opens a later segment is the one with a space before it."""
    vocab = codec().tokenizer.get_vocab()
    tokens = [*sorted(vocab, key=vocab.__getitem__), "sun", "Ġsun", "su"]
    words = byte_level_bpe(tokens, ["s u", "su n", "Ġ sun"], special=[256, 257, 258])
    text = TextCodec(words, end_of_text=256, turn_begin=257, turn_end=258)
    shape = replace(SHAPE, ctc=replace(SHAPE.ctc, vocab_size=262))
    adapter = ReadoutAdapter(ReadoutConfig(state_dim=12, hidden_dim=8, llm_dim=16))
    hearing = CtcHearing(CtcListener(shape).eval(), adapter, text, mode="text")
    spaced = hearing._spaced
    assert spaced[259] == 260 and spaced[260] == 260 and spaced[257] == 257
    heard = listener().hear(sounds(1.2, 1)[None].expand(2, -1), torch.tensor([19_200] * 2), table())
    heard = replace(heard, ids_BT=heard.ids_BT.clone())
    heard.ids_BT[:, :2] = 259
    went_on = hearing._go_on(heard, torch.tensor([False, True]))
    assert went_on.ids_BT[:, :2].tolist() == [[259, 259], [260, 259]]
    assert hearing.text([259]) + hearing.text([260]) == "sun sun"
    model = ctc_omni(longest=1.0)
    state = model.init_state(1)
    assert ask(model, state, 0, sounds(3.5, 4))[0] and int(state.ear.kept_B[0]) > 0


def test_parts_of_another_shape_are_refused():
    model = ctc_omni()
    other = replace(SHAPE, ctc=replace(SHAPE.ctc, dim=8))
    with pytest.raises(PartError, match=r"config\.ctc\.dim 12, got 8"):
        model.replace_part("encoder", CtcListener(other))
    with pytest.raises(PartError, match="encoder"):
        tiny_omni().replace_part("encoder", CtcListener(SHAPE))
    model.replace_part("encoder", listener(blank=-20.0))
    assert model.ear.hearing.listener.ctc.blank.bias[0] == -20
    with pytest.raises(ConfigError, match="width 16, the adapter wants 24"):
        replace(SHAPE, ctc=replace(SHAPE.ctc, encoder_dim=24))
    with pytest.raises(ConfigError, match="need 'states' or 'text', got 'words'"):
        ctc_omni(mode="words")
