"""A LlamaOmni of a few thousand random numbers, whole: every part is there, none has learnt anything."""

from __future__ import annotations

import torch
from tokenizers.pre_tokenizers import ByteLevel

from duologue.codecs.text import TextCodec, byte_level_bpe
from duologue.models.llama_omni.adapter import ReadoutAdapter, ReadoutConfig
from duologue.models.llama_omni.framing import Framing
from duologue.models.llama_omni.listener import Listener, ListenerConfig
from duologue.models.llama_omni.listening import Ear, EarOptions, RecogniserHearing
from duologue.models.llama_omni.model import LlamaOmni, OmniOptions
from duologue.models.llama_omni.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from duologue.models.whisper import WhisperConfig
from duologue.nn.transformer import Transformer, TransformerConfig
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig

BYTES = sorted(ByteLevel.alphabet())
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROMPT = (259, 260)
TICK = 1280  # samples
WHISPER = WhisperConfig(
    num_mels=80,
    dim=16,
    heads=2,
    ffn_dim=32,
    encoder_layers=1,
    decoder_layers=1,
    max_source=200,
    max_target=40,
    vocab_size=262,
)


def codec() -> TextCodec:
    """A byte a token, and ChatML's marks."""
    tokens = BYTES + SPECIAL
    tokenizer = byte_level_bpe(tokens, [], special=[256, 257, 258])
    return TextCodec(tokenizer, end_of_text=256, turn_begin=257, turn_end=258)


def listener() -> Listener:
    """Writes bytes; random weights are scaled up so that its choices differ."""
    model = Listener(ListenerConfig(whisper=WHISPER, prompt=PROMPT, end=256, text_tokens=256, candidates=4))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tiny_omni(*, mode: str = "states", longest: float = 1.5, longest_answer: int = 10, **options) -> LlamaOmni:
    """The whole model, the same at every call."""
    torch.manual_seed(0)
    words = codec()
    hearing = RecogniserHearing(
        listener(),
        ReadoutAdapter(ReadoutConfig(state_dim=16, hidden_dim=8, llm_dim=16)),
        words.tokenizer,
        words,
        mode=mode,
    )
    llm = Transformer(TransformerConfig(vocab_size=259, dim=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn_dim=32))
    for parameter in llm.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    speech = SpeechDecoder(
        SpeechDecoderConfig(llm_dim=16, dim=16, layers=1, heads=2, ffn_dim=16, upsample=4, grid_dim=8)
    )
    torch.nn.init.normal_(speech.units.weight, std=2.0)
    vocoder = SpectralVocoder(SpectralVocoderConfig(dim=8, unit_hidden=8, step_hidden=8, rank=4))
    return LlamaOmni(
        ear=Ear(hearing, EarOptions(longest=longest, again=0.3, pieces=32, turn_pieces=200)),
        llm=llm.eval(),
        codec=words,
        speech_decoder=speech.eval(),
        vocoder=vocoder.eval(),
        framing=Framing.chatml(words, "Be short."),
        options=OmniOptions(context=400, longest_answer=longest_answer, **options),
    )


def sounds(seconds: float, seed: int) -> torch.Tensor:
    return torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(seed)) * 0.1


def ask(model, state, slot: int, audio: torch.Tensor, *, others: torch.Tensor | None = None):
    """One turn in one slot. `others`: slots that idle on garbage meanwhile."""
    slots = len(state.phase_B)
    live_B = torch.zeros(slots, dtype=torch.bool)
    live_B[slot] = True
    audio = torch.nn.functional.pad(audio, (0, -len(audio) % TICK))
    for tick in audio.split(TICK):
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
            break
    else:
        raise AssertionError("the answer does not end")
    return model.heard(state, slot), ids, torch.cat(speech)
