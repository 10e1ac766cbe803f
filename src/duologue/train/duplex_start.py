"""What a full-duplex model begins as: a language model's layers, a model of the family, or random numbers.

A Llama-shaped language model becomes the temporal transformer as it is: same blocks, same grouped keys. Its query and
key rows are laid out anew, since the rotary pairs of ours are neighbours, not halves of a head. Text embedding and text
head are two copies of its embedding; what it has no weights for (codes, depth transformer) is random.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from duologue import config as configs
from duologue.checkpoints import open_model
from duologue.checkpoints.codecs import load_codec
from duologue.codecs.mimi import Mimi, MimiConfig
from duologue.codecs.mimi_weights import load_mimi, mimi_from_tensors
from duologue.codecs.rvq import Codebook
from duologue.codecs.text import load_tokenizer
from duologue.errors import ConfigError, TrainError
from duologue.models.moshi.config import DepthConfig, MoshiConfig
from duologue.models.moshi.loading import CODEC_FILE, MODEL_FILE, TEXT_FILES, FamilyConfig, silent
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released import load_moshi, meta_model
from duologue.models.moshi.released_family import read_release
from duologue.models.moshi.text import load_pieces
from duologue.nn.quant import unpack_int8
from duologue.nn.transformer import Transformer, TransformerConfig
from duologue.nn.weight_files import fill
from duologue.nn.window_transformer import WindowConfig
from duologue.train.parts import find, load_language_model

LOUDNESS = 0.12  # root mean square of a frame's semantic and acoustic embedding to begin with; of SmolLM2's words 0.12
READ = 0.45  # of what was heard and is read again, to begin with: it comes with the sound of both sides
ADDED = ("<|padding|>", "<|end_padding|>")  # behind the tokenizer's own: no word is written; one begins next


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """A model that is not there yet."""

    llm: str = ""  # see parts.load_language_model; empty: random, of the shape `temporal`
    layers: tuple[int, ...] = ()  # which of the language model's are taken, in this order; empty: all
    pieces: int = 0  # of its vocabulary, those merged first; 0: all
    temporal: WindowConfig | None = None  # without a language model
    tokenizer: str = ""  # a tokenizer.json, without a language model
    depth: DepthConfig = field(default_factory=DepthConfig)  # as many steps as a side has codebooks, or as both have
    context: int = 3000  # frames that it sees
    loud: float = 1.0  # times that the language model's pieces are as they come with the sound of both sides


@dataclass
class Beginning:
    """A model about to be trained, and what belongs to it."""

    model: MoshiModel
    mimi: Mimi
    tokenizer: bytes  # the file
    tokenizer_name: str
    encode: Callable[[str], list[int]]  # a word, or a text, to its pieces
    family: FamilyConfig = field(default_factory=FamilyConfig)  # of `start`: how it takes instructions and conditions


def begin(
    new: NewModel,
    *,
    start: str,
    codec: str,
    acoustic_delay: int | None,
    hear_delay: int | None = None,
    text_lead: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Beginning:
    """
    Args:
        start: a model folder to go on from, ours or a published one of Moshi's kind; empty: `new`.
        codec: a codec folder; empty: that of `start`.
        acoustic_delay: frames by which the further codebooks come after the first; None: as `start` has it, else 1.
        hear_delay: see MoshiConfig; a start without that head is given one. None: as `start` has it, else none.
        text_lead: see MoshiConfig. None: as `start` has it, else 0.
        dtype: of the weights of `start`; a new model is in float32.
    Raises:
        ConfigError: neither a start nor a new model, or parts that do not fit. TrainError, CheckpointError: what is
            named is not there, or of another kind.
    """
    if start:
        return _from_folder(start, codec, acoustic_delay, hear_delay, text_lead, dtype)
    if not codec or bool(new.llm) == bool(new.temporal):
        raise ConfigError("DuplexTask: need `start`, or a `codec` and `new` with a llm or with a shape, `temporal`")
    mimi = load_codec(codec)
    if new.llm:
        llm, text = load_language_model(new.llm, "fp32")
        tokenizer, kept = trimmed(text.tokenizer, new.pieces)
        temporal = window_config(llm.config, layers=len(new.layers) or llm.config.layers, context=new.context)
    else:
        assert new.temporal is not None
        if not new.tokenizer:
            raise ConfigError("DuplexTask: a new model without a llm needs a tokenizer")
        tokenizer, kept = trimmed(load_tokenizer(find(new.tokenizer)), new.pieces)
        temporal = replace(new.temporal, context=new.context)
    config = moshi_config(temporal, new.depth, mimi.config, text=len(kept), delay=acoustic_delay)
    model = MoshiModel(replace(config, hear_delay=hear_delay, text_lead=text_lead or 0))
    put_codebooks(model, mimi)
    if new.llm:
        put_language_model(model, llm, layers=new.layers, pieces=kept)
        model.text_embedding.table.weight.data[: len(kept) - len(ADDED)] *= new.loud
    if model.hear is not None:
        for name, weight_DD in _hearing(model.text_embedding.table.weight.data).items():
            model.get_parameter(name).data.copy_(weight_DD)
    return Beginning(model, mimi, tokenizer.to_str().encode(), TEXT_FILES[0], word_encoder(tokenizer))


def _hearing(words_VD: Tensor) -> dict[str, Tensor]:
    """How the head for what is heard begins: it scores as the text's does, and what it wrote is read loud."""
    eye_DD = torch.eye(words_VD.shape[1])
    return {"hear.weight": eye_DD, "reread.weight": READ / words_VD.float().square().mean().sqrt() * eye_DD}


def _from_folder(
    name: str,
    codec: str,
    acoustic_delay: int | None,
    hear_delay: int | None,
    text_lead: int | None,
    dtype: torch.dtype,
) -> Beginning:
    folder, published = open_model(find(name)), None
    if folder.family == "moshi_release":
        published = read_release(folder)
        config, file = published.config, published.text
    else:
        folder.require_family("moshi")
        config = configs.from_dict(FamilyConfig, folder.model, where=f"{folder.path}/config.json: model")
        file = folder.file(next((text for text in TEXT_FILES if text in folder.files), TEXT_FILES[0]))
    language = config.language_model
    if acoustic_delay is not None:
        language = replace(language, delays=delays(language.own_codebooks, language.heard_codebooks, acoustic_delay))
    if text_lead is not None:
        language = replace(language, text_lead=text_lead)
    if hear_delay is not None:
        if published:
            raise ConfigError(f"{name}: a published model has no head for what it hears; leave hear_delay out")
        language = replace(language, hear_delay=hear_delay)
    if published:
        model = load_moshi(published.folder, dtype=dtype, config=language)
        mimi = load_mimi(published.codec, config.mimi)
    else:
        model, where = meta_model(language), f"{folder.path}/{MODEL_FILE}"
        tensors = unpack_int8(folder.tensors(MODEL_FILE), dtype)
        if model.hear is not None:  # one that is new begins with what the text's head makes of it
            begun = _hearing(tensors["text_embedding.table.weight"])
            tensors = {name: each.to(dtype) for name, each in begun.items()} | tensors
        fill(model, tensors, where=where)
        mimi = mimi_from_tensors(folder.tensors(CODEC_FILE), config.mimi, where=f"{folder.path}/{CODEC_FILE}")
    if codec:
        mimi = load_codec(codec)
        if mimi.config.quantizer.codebook_size != language.codebook_size:
            raise ConfigError(f"{codec}: not the codec that {name} was trained with")
    if file.suffix == ".json":
        encode = word_encoder(load_tokenizer(file))
    else:
        encode = load_pieces(file, silent=silent(language)).encode  # SentencePiece puts the space before a word itself
    return Beginning(model, mimi, file.read_bytes(), TEXT_FILES[file.suffix != ".json"], encode, config)


def delays(own: int, heard: int, acoustic: int) -> tuple[int, ...]:
    """Of text, own and heard codebooks: the first of a side has none."""
    sides = [0] + [acoustic] * (own - 1), ([0] + [acoustic] * (heard - 1))[:heard]
    return (0, *sides[0], *sides[1])


def moshi_config(
    temporal: WindowConfig, depth: DepthConfig, codec: MimiConfig, *, text: int, delay: int | None
) -> MoshiConfig:
    """The shape round a temporal transformer; `text` pieces, the last two of them paddings."""
    count = codec.num_codebooks
    if depth.steps not in (count, 2 * count):
        raise ConfigError(
            f"DuplexTask: the depth transformer needs {count} steps, as many as the codec has codebooks, or "
            f"{2 * count} to guess the user's, too; got {depth.steps}"
        )
    return MoshiConfig(
        temporal=temporal,
        depth=depth,
        codebooks=2 * count,
        own_codebooks=count,
        codebook_size=codec.quantizer.codebook_size,
        text_vocab=text,
        delays=delays(count, count, 1 if delay is None else delay),
        padding_id=text - 2,
        end_padding_id=text - 1,
    )


def window_config(llm: TransformerConfig, *, layers: int, context: int) -> WindowConfig:
    """The temporal transformer of a language model's shape.

    Raises:
        TrainError: it has parts that ours lacks.
    """
    odd = {
        "biases on queries and keys": llm.qkv_bias,
        "norms of queries and keys": llm.qk_norm,
        "stretched rotary positions": llm.rope_scaling is not None,
        "heads that do not make up its width": llm.heads * llm.head_dim != llm.dim,
    }
    if any(odd.values()):
        what = " and ".join(name for name, there in odd.items() if there)
        raise TrainError(f"DuplexTask: the language model has {what}, which the temporal transformer lacks")
    return WindowConfig(
        dim=llm.dim,
        layers=layers,
        heads=llm.heads,
        kv_heads=llm.kv_heads,
        ffn_dim=llm.ffn_dim,
        norm_eps=llm.norm_eps,
        rope_theta=llm.rope_theta,
        context=context,
    )


@torch.no_grad()
def put_language_model(model: MoshiModel, llm: Transformer, *, layers: Sequence[int], pieces: Sequence[int]) -> None:
    """Copies a language model's weights into a model of its width, in place.

    Args:
        layers: which of its layers; empty: all.
        pieces: which row of its embedding each piece of text has, -1: none, it begins as their mean.
    Raises:
        ConfigError: a layer that it does not have.
    """
    c, chosen = llm.config, list(layers) or list(range(llm.config.layers))
    if not set(chosen) <= set(range(c.layers)):
        raise ConfigError(f"DuplexTask: the language model has layers 0 to {c.layers - 1}, got {chosen}")
    for block, number in zip(model.transformer.layers, chosen, strict=True):
        theirs = llm.blocks.layers[number].state_dict()
        theirs["attention.qkv.weight"] = neighbours(theirs["attention.qkv.weight"], c)
        block.load_state_dict({name.replace("gate_up", "up"): tensor for name, tensor in theirs.items()})
    model.norm.load_state_dict(llm.norm.state_dict())
    head = llm.embedding.weight if llm.head is None else llm.head.weight
    read, said = model.text_embedding.table.weight, model.text_head.weight
    for table, source, rows in ((read, llm.embedding.weight, [*pieces, -1]), (said, head, [*pieces])):
        table.copy_(source.mean(0).expand_as(table))
        there = torch.tensor([row >= 0 for row in rows])
        table[there] = source[torch.tensor([row for row in rows if row >= 0])].to(table.dtype)


@torch.no_grad()
def put_codebooks(model: MoshiModel, mimi: Mimi, *, streams: slice = slice(None)) -> None:
    """Begins the embeddings of codes as what the codec makes of them, turned at random into its width, in place.

    Codes that sound alike begin alike, and a frame's embeddings add up to what the codec itself makes of the frame, so
    that what is learnt of one code holds for its neighbours. The semantic and the acoustic part are apart.

    Args:
        streams: which of the model's codebooks, own ones first.
    """
    c, quantizer = model.config, mimi.quantizer
    table = model.audio_embedding.table.weight.unflatten(0, (c.codebooks, -1))
    for first, count in ((0, c.own_codebooks), (c.own_codebooks, c.heard_codebooks)):
        chosen = range(c.codebooks)[streams]
        semantic = quantizer.config.semantic
        for part, places in ((quantizer.semantic, range(semantic)), (quantizer.acoustic, range(semantic, count))):
            books = part.books(len(places))
            if not books:
                continue
            turned = torch.nn.init.orthogonal_(torch.empty(c.temporal.dim, mimi.config.quantizer.dim))
            made = [_spread(book) @ part.output.weight.float().T @ turned.T for book in books]
            power = sum(float(_mean(book, vectors.square()).mean()) for book, vectors in zip(books, made, strict=True))
            for place, vectors in zip(places, made, strict=True):
                if first + place in chosen:
                    table[first + place, : len(vectors)] = vectors * (LOUDNESS / max(power, 1e-12) ** 0.5)


def _spread(book: Codebook) -> Tensor:
    """A codebook's vectors round their mean."""
    vectors = book.vectors()[0].float()
    return vectors - _mean(book, vectors)


def _mean(book: Codebook, rows: Tensor) -> Tensor:
    """The mean over what is coded, each code as often as it is used."""
    usage = book.usage.float() / book.usage.sum().clamp_min(1e-6)
    return usage @ rows


def neighbours(qkv: Tensor, config: TransformerConfig) -> Tensor:
    """Query and key rows of rotary pairs that are halves of a head, so that the pairs are neighbours."""
    turned = (config.heads + config.kv_heads) * config.head_dim
    rows = qkv[:turned].unflatten(0, (-1, 2, config.head_dim // 2))
    return torch.cat([rows.transpose(1, 2).flatten(0, 2), qkv[turned:]])


def trimmed(tokenizer: Tokenizer, pieces: int) -> tuple[Tokenizer, list[int]]:
    """A byte-pair tokenizer that stops merging early, with `ADDED` behind its pieces.

    Args:
        pieces: in all, without those that are added; 0: every one of them stays, whatever the tokenizer's kind.
    Returns:
        The tokenizer, and the old id of each of its ids; -1 for those that are added.
    Raises:
        ConfigError: too few pieces for the special tokens and bytes, or not a tokenizer that merges.
    """
    made = json.loads(tokenizer.to_str())
    kept = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    if pieces and pieces < len(kept):
        kept = _stop_early(made, pieces)
    new = Tokenizer.from_str(json.dumps(made))
    names = {place: tokenizer.id_to_token(old) for place, old in enumerate(kept)}
    if any(name is None or new.token_to_id(name) != place for place, name in names.items()):
        raise ConfigError("DuplexTask: the tokenizer's ids have gaps; use another one")
    new.add_special_tokens(list(ADDED))
    return new, [*kept, *[-1] * len(ADDED)]


def _stop_early(made: dict[str, Any], pieces: int) -> list[int]:
    """Cuts a tokenizer's description down, in place, and gives the old ids in the order of the new."""
    model, special = made["model"], {each["content"]: each["id"] for each in made["added_tokens"]}
    if model.get("type") != "BPE":
        raise ConfigError(f"DuplexTask: `pieces` needs a byte-pair tokenizer, got one of the kind {model.get('type')}")
    merged = ["".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in model["merges"]]
    first = set(model["vocab"]) - set(merged) | set(special)
    room = pieces - len(first)
    if room < 0:
        raise ConfigError(f"DuplexTask: {len(first)} pieces are special tokens and letters, so {pieces} are too few")
    while len(set(merged[:room]) - first) < pieces - len(first) and room < len(merged):
        room += 1  # some merges give the same piece
    wanted = first | set(merged[:room])
    old = model["vocab"] | special
    names = sorted(wanted, key=lambda name: old[name])
    place = {name: number for number, name in enumerate(names)}
    model["vocab"] = {name: place[name] for name in names if name in model["vocab"]}
    model["merges"] = model["merges"][:room]
    for each in made["added_tokens"]:
        each["id"] = place[each["content"]]
    return [old[name] for name in names]


def word_encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """A word in the middle of a text to its pieces, whether the tokenizer puts the space before it itself or not."""

    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    first = plain("a")[:1]
    own_space = bool(first) and (tokenizer.id_to_token(first[0]) or "").startswith(("▁", "Ġ"))
    return plain if own_space else lambda text: plain(f" {text}")
