"""What frozen parts make of the rows, worked out once and kept: the listener's states, the language model's states.

A cache is a folder with a safetensors file a shard of the data. Its name carries the fingerprint of the part that made
it, so that another part makes another cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from duologue.codecs.text import Message, TextCodec
from duologue.data.manifest import QUESTION_RATE, Turn, decode_flac, read_shard, shard_paths
from duologue.errors import DataError
from duologue.models.llama_omni.listener import Heard, Listener
from duologue.models.llama_omni.loading import fill_in
from duologue.nn.attention import KVCache
from duologue.nn.transformer import Transformer
from duologue.train.progress import Bar
from duologue.train.rows import FIRST_DAY, day_of
from duologue.train.state import write_whole

M = TypeVar("M", bound=nn.Module)
Ragged = dict[str, Tensor]  # of one row; all its tensors have the same first axis


class Hears(Protocol):
    """What `heard` needs of a listener."""

    def hear(self, audio_BN: Tensor, samples_B: Tensor) -> Heard: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class RowCache:
    """Ragged tensors of rows by their ids, read from disk as they are asked for."""

    def __init__(self, paths: Sequence[Path]):
        self._place: dict[str, tuple[Any, int, int]] = {}
        for path in paths:
            try:
                handle = safe_open(path, framework="pt")
                rows = json.loads(handle.metadata()["rows"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}: not a whole cache ({error}). Delete it, it is made again.") from error
            begin = 0
            for name, count in rows:
                self._place[name] = (handle, begin, begin + count)
                begin += count

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._place

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, row_id: str) -> Ragged:
        handle, begin, end = self._place[row_id]
        return {name: handle.get_slice(name)[begin:end] for name in handle.keys()}  # noqa: SIM118

    def count(self, row_id: str) -> int:
        """The length of a row, without reading it."""
        _, begin, end = self._place[row_id]
        return end - begin


def write_cache(path: Path, rows: Mapping[str, Ragged], like: Mapping[str, Tensor]) -> None:
    """One file of a cache, whole or not at all.

    Args:
        like: tensors of length 0, for a file without rows.
    """
    counts = [(name, len(next(iter(row.values())))) for name, row in rows.items()]
    joined = {key: torch.cat([empty, *(row[key] for row in rows.values())]) for key, empty in like.items()}
    write_whole(path, lambda part: save_file(joined, part, metadata={"rows": json.dumps(counts)}))


def cached(
    folder: str,
    name: str,
    make: Callable[[list[Turn]], dict[str, Ragged]],
    *,
    columns: Sequence[str],
    like: Mapping[str, Tensor],
    cache: str = "",
) -> RowCache:
    """The cache of a data folder; shards that are not in it yet are worked out now.

    Args:
        name: of the cache, with the fingerprint of what makes it.
        make: gives the tensors of a shard's rows by id; rows may be left out.
        columns: what `make` needs of the rows, beside their ids.
        cache: where caches are kept; empty: in the data folder.
    """
    return cached_shards(folder, name, lambda shard: make(read_shard(shard, columns=columns)), like=like, cache=cache)


def cached_shards(
    folder: str,
    name: str,
    make: Callable[[Path], dict[str, Ragged]],
    *,
    like: Mapping[str, Tensor],
    cache: str = "",
) -> RowCache:
    """As `cached`, for data of any kind: `make` reads the shard itself."""
    shards = shard_paths(Path(folder))
    place = Path(cache or Path(folder) / "features") / name
    missing = [shard for shard in shards if not (place / f"{shard.stem}.safetensors").exists()]
    bar = Bar(name.rpartition("-")[0], step=0, steps=len(missing), every=1) if missing else None
    try:
        for number, shard in enumerate(missing, start=1):
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                write_cache(place / f"{shard.stem}.safetensors", make(shard), like)
            if bar:
                bar.step({"step": number})
    finally:
        if bar:
            bar.close()
    return RowCache([place / f"{shard.stem}.safetensors" for shard in shards])


def to_card(module: M) -> M:
    """Moves a frozen part to a card where there is one, to work through the data sooner."""
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def groups(items: Sequence[Any], lengths: Sequence[int], most: int) -> Iterator[list[Any]]:
    """Items of like length together, as many as keep rows x longest within `most`."""
    batch: list[Any] = []
    for index in sorted(range(len(items)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[index] > most:
            yield batch
            batch = []
        batch.append(items[index])
    if batch:
        yield batch


@torch.no_grad()
def heard(turns: list[Turn], listener: Hears, *, longest: float = 28.0) -> dict[str, Ragged]:
    """What the listener hears in each question: pieces, states, guesses. Rows where it hears nothing are left out."""
    rows: dict[str, Ragged] = {}
    asked = [turn for turn in turns if turn.question_audio and 0.2 <= turn.question_seconds <= longest]
    clips = [(turn.id, torch.from_numpy(decode_flac(turn.question_audio, QUESTION_RATE))) for turn in asked]
    device = next(listener.parameters()).device
    for group in groups(clips, [len(audio) for _, audio in clips], 64 * QUESTION_RATE):
        samples_B = torch.tensor([len(audio) for _, audio in group])
        audio_BN = torch.nn.utils.rnn.pad_sequence([audio for _, audio in group], batch_first=True)
        found = listener.hear(audio_BN.to(device), samples_B.to(device))
        for row, (name, _) in enumerate(group):
            count = int(found.counts_B[row])
            if count:
                rows[name] = {
                    "ids": found.ids_BT[row, :count].int().cpu(),
                    "states": found.states_BTD[row, :count].half().cpu(),
                    "guess_ids": found.guess_ids_BTK[row, :count].int().cpu(),
                    "guess_probs": found.guess_probs_BTK[row, :count].half().cpu(),
                }
    return {turn.id: rows[turn.id] for turn in asked if turn.id in rows}


def heard_like(listener: Listener) -> Ragged:
    """Tensors of length 0, shaped as those of `heard`."""
    return heard_shapes(listener.config.whisper.dim, listener.config.candidates)


def heard_shapes(dim: int, candidates: int) -> Ragged:
    """As `heard_like`, of any listener with states of this width and so many guesses."""
    return {
        "ids": torch.zeros(0, dtype=torch.int32),
        "states": torch.zeros(0, dim, dtype=torch.float16),
        "guess_ids": torch.zeros(0, candidates, dtype=torch.int32),
        "guess_probs": torch.zeros(0, candidates, dtype=torch.float16),
    }


def padded_heard(rows: Sequence[Ragged]) -> Heard:
    """Cached rows as the listener would have given them together."""

    def pad(name: str, value: float, dtype: torch.dtype) -> Tensor:
        parts = [row[name].to(dtype) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)

    return Heard(
        ids_BT=pad("ids", -1, torch.int64),
        counts_B=torch.tensor([len(row["ids"]) for row in rows]),
        states_BTD=pad("states", 0, torch.float32),
        guess_ids_BTK=pad("guess_ids", 0, torch.int64),
        guess_probs_BTK=pad("guess_probs", 0, torch.float32),
    )


@dataclass(frozen=True)
class Frames:
    """The fixed token ids round a question: how `LlamaOmni` opens the user's turn and hands over to the answer."""

    opening: list[int]
    to_answer: list[int]
    end: int

    @staticmethod
    def of(codec: TextCodec) -> Frames:
        return Frames(codec.open_turn("user"), codec.close_turn() + codec.open_turn("assistant"), codec.turn_end)


@torch.no_grad()
def opened(llm: Transformer, systems_ST: Tensor, counts_S: Tensor, system_B: Tensor, *, room: int) -> KVCache:
    """A cache in which every row has read its instructions; those that several rows share are read once.

    Args:
        systems_ST: the instructions' tokens, padded; `counts_S` of them are real.
        system_B: which of them opens each row.
        room: positions for what follows.
    """
    S, width = systems_ST.shape
    state = llm.init_state(S, width)
    live_S = torch.ones(S, dtype=torch.bool, device=systems_ST.device)
    llm(llm.embedding(systems_ST), state, live_S, counts_S)
    cache = llm.init_state(len(system_B), width + room)
    cache.k_BLHTD[:, :, :, :width] = state.k_BLHTD[system_B]
    cache.v_BLHTD[:, :, :, :width] = state.v_BLHTD[system_B]
    cache.length_B.copy_(counts_S[system_B])
    return cache


@torch.no_grad()
def answer_states(
    turns: list[Turn], llm: Transformer, codec: TextCodec, *, system: str, tokens: int = 4096
) -> dict[str, Ragged]:
    """The language model's last hidden state after it consumed each token of the answer, the end of the turn included.

    LLaMA-Omni's own decoder hears the state that predicts a token; mini's hears the one after it, which knows it.

    Args:
        system: instructions with {weekday} and the like; each row has its own day, or else the first.
        tokens: of padded rows in a batch.
    """
    frames, rows, items = Frames.of(codec), dict[str, Ragged](), []
    for turn in turns:
        if turn.units and turn.answer.strip():
            asked = [*frames.opening, *codec.encode(turn.question), *frames.to_answer]
            items.append((turn.id, day_of(turn.id) or FIRST_DAY, asked, [*codec.encode(turn.answer), frames.end]))
    device = llm.embedding.weight.device
    for group in groups(items, [len(asked) + len(answer) for _, _, asked, answer in items], tokens):
        days = list(dict.fromkeys(day for _, day, _, _ in group))
        prompts = [torch.tensor(codec.chat([Message("system", fill_in(system, day))], answer=False)) for day in days]
        cache = opened(
            llm,
            torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True).to(device),
            torch.tensor([len(prompt) for prompt in prompts], device=device),
            torch.tensor([days.index(day) for _, day, _, _ in group], device=device),
            room=max(len(asked) + len(answer) for _, _, asked, answer in group),
        )
        whole = [torch.tensor(asked + answer) for _, _, asked, answer in group]
        counts_B = torch.tensor([len(ids) for ids in whole], device=device)
        ids_BT = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True).to(device)
        live_B = torch.ones(len(group), dtype=torch.bool, device=device)
        hidden_BTD = llm(llm.embedding(ids_BT), cache, live_B, counts_B)
        for row, (name, _, asked, answer) in enumerate(group):
            states = hidden_BTD[row, len(asked) : len(asked) + len(answer)]
            rows[name] = {"ids": torch.tensor(answer, dtype=torch.int32), "states": states.half().cpu()}
    return {turn.id: rows[turn.id] for turn in turns if turn.id in rows}


def answer_states_like(llm: Transformer) -> Ragged:
    """Tensors of length 0, shaped as those of `answer_states`."""
    return {
        "ids": torch.zeros(0, dtype=torch.int32),
        "states": torch.zeros(0, llm.config.dim, dtype=torch.float16),
    }
