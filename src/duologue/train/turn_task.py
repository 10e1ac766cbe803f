"""The head that tells whether a question sounds complete: whole clips against the same clips cut off in the middle.

The listener is frozen; what its decoder thinks where it ends the sentence is worked out once and kept. A clip is cut
where it is quiet, so that a cut sounds like a pause, and both forms end in the same stretch of silence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.data.batches import BatchConfig
from duologue.data.manifest import QUESTION_RATE, Turn, decode_flac
from duologue.errors import DataError
from duologue.models.llama_omni.listener import Listener
from duologue.models.llama_omni.turn_head import TurnHead, TurnHeadConfig
from duologue.train import features
from duologue.train import rows as manifest
from duologue.train.distributed import to_device
from duologue.train.parts import fingerprint, load_listener, save_part

COLUMNS = ("question", "split", "source")
TURN_HEAD = "turn_head"
_QUIET = 32.0  # dB under the loudest, below which a clip has not begun or is over


@dataclass(frozen=True, kw_only=True)
class TurnTask:
    """Clips of questions, whole and cut off."""

    data: str  # a data folder
    listener: str  # a folder that the stage `listen` exported
    more: tuple[str, ...] = ()  # further data folders
    hidden: int = 64
    rows: int = 128  # clips of a batch, each in both forms
    words: int = 3  # fewest of a clip
    shortest: float = 1.0  # seconds of a clip
    longest: float = 12.0
    share: float = 1.0  # of the clips, drawn by their ids: to hear each twice takes time
    silence: float = 0.2  # seconds after what was said: the pause in which the head is asked
    held_out: int = 1000
    cache: str = ""

    def make(self) -> _Turns:
        """The task."""
        return _Turns(self)


@dataclass(frozen=True)
class TurnBatch:
    states_BD: Tensor
    log_probs_B: Tensor
    complete_B: Tensor  # 1: the whole clip


class _Turns:
    """`TurnTask` at work."""

    def __init__(self, config: TurnTask):
        self.config = config
        self.folders = (config.data, *config.more)

    @functools.cached_property
    def _listener(self) -> Listener:
        return load_listener(self.config.listener)[0]

    @functools.cached_property
    def ends(self) -> list[features.RowCache]:
        """How the listener ends each clip, whole and cut; a cache a folder."""
        c, listener = self.config, features.to_card(self._listener)
        make = functools.partial(end_rows, listener=listener, config=c)
        name = f"ends-{c.silence:g}-{c.share:g}-{fingerprint(listener)}"
        like = {
            "states": torch.zeros(0, listener.config.whisper.dim, dtype=torch.float16),
            "log_probs": torch.zeros(0),
            "complete": torch.zeros(0),
        }
        columns = ("question", "question_audio", "question_seconds")
        caches = [
            features.cached(folder, name, make, columns=columns, like=like, cache=self._place(number))
            for number, folder in enumerate(self.folders)
        ]
        listener.to("cpu")
        return caches

    def _place(self, number: int) -> str:
        return str(Path(self.config.cache) / f"{number}-{Path(self.folders[number]).name}") if self.config.cache else ""

    def build(self) -> nn.Module:
        return TurnHead(TurnHeadConfig(state_dim=self._listener.config.whisper.dim, hidden_dim=self.config.hidden))

    def prepare(self) -> None:
        self.ends  # noqa: B018

    def batches(self, seed: int, position: int) -> Iterator[Callable[[], TurnBatch]]:
        c = self.config
        folders = [
            BatchConfig(folder=folder, columns=COLUMNS, rows=c.rows, shortest=c.shortest, longest=c.longest, seed=seed)
            for folder in self.folders
        ]
        for _, folder, turns in manifest.stream(folders, seed=seed, position=position):
            yield functools.partial(self._batch, [(folder, turn) for turn in turns])

    def _batch(self, turns: list[tuple[int, Turn]]) -> TurnBatch:
        rows = [self.ends[folder][turn.id] for folder, turn in turns if turn.id in self.ends[folder]]
        if not rows:
            raise DataError(f"{', '.join(self.folders)}: a whole batch without clips in which words are heard")
        joined = {name: torch.cat([row[name] for row in rows]).float() for name in rows[0]}
        return TurnBatch(joined["states"], joined["log_probs"], joined["complete"])

    def loss(self, module: nn.Module, batch: TurnBatch) -> tuple[Tensor, dict[str, float | Tensor]]:
        odds_B = module(batch.states_BD, batch.log_probs_B)
        return F.binary_cross_entropy_with_logits(odds_B, batch.complete_B), {"weight": len(odds_B)}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Precision and recall of "complete" at even odds, the area under the curve and the loss, on the split dev."""
        found = manifest.held_out(self.folders, COLUMNS, most=self.config.held_out)
        batch = to_device(self._batch(found), next(module.parameters()).device)
        odds_B = module(batch.states_BD, batch.log_probs_B)
        said_B, true_B = odds_B > 0, batch.complete_B > 0.5
        right = float((said_B & true_B).sum())
        return {
            "loss": float(F.binary_cross_entropy_with_logits(odds_B, batch.complete_B)),
            "precision": right / max(1.0, float(said_B.sum())),
            "recall": right / max(1.0, float(true_B.sum())),
            "area": area(odds_B[true_B], odds_B[~true_B]),
        }

    def export(self, module: nn.Module, folder: Path) -> None:
        """turn_head.safetensors and turn_head.json."""
        assert isinstance(module, TurnHead)
        save_part(module, TURN_HEAD, folder)


def area(right: Tensor, wrong: Tensor) -> float:
    """The chance that one of `right` is above one of `wrong`: the area under the receiver's curve."""
    above = (right[:, None] > wrong).float() + 0.5 * (right[:, None] == wrong).float()
    return float(above.mean()) if above.numel() else 0.5


@torch.no_grad()
def end_rows(turns: list[Turn], listener: Listener, config: TurnTask) -> dict[str, features.Ragged]:
    """How the listener ends each clip that has enough words, whole and cut off."""
    asked = [
        turn
        for turn in turns
        if turn.question_audio
        and crc32(turn.id.encode()) / 2**32 < config.share
        and config.shortest <= turn.question_seconds <= config.longest
        and len(turn.question.split()) >= config.words
    ]
    clips: list[tuple[str, float, Tensor]] = []
    for turn in asked:
        rng = np.random.default_rng(list(turn.id.encode()))
        for complete, audio in forms(decode_flac(turn.question_audio, QUESTION_RATE), silence=config.silence, rng=rng):
            clips.append((turn.id, complete, torch.from_numpy(audio)))
    rows: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
    device = next(listener.parameters()).device
    for group in features.groups(clips, [len(audio) for _, _, audio in clips], 64 * QUESTION_RATE):
        samples_B = torch.tensor([len(audio) for _, _, audio in group])
        audio_BN = torch.nn.utils.rnn.pad_sequence([audio for _, _, audio in group], batch_first=True)
        heard = listener.hear(audio_BN.to(device), samples_B.to(device), hasty=True)
        assert heard.end_state_BD is not None and heard.end_log_prob_B is not None
        for row, (name, complete, _) in enumerate(group):
            if heard.counts_B[row]:
                end = (heard.end_state_BD[row].half().cpu(), heard.end_log_prob_B[row].float().cpu(), complete)
                rows.setdefault(name, []).append(end)
    return {
        name: {
            "states": torch.stack([state for state, _, _ in ends]),
            "log_probs": torch.stack([log_prob for _, log_prob, _ in ends]),
            "complete": torch.tensor([complete for _, _, complete in ends]),
        }
        for name, ends in ((turn.id, rows[turn.id]) for turn in asked if turn.id in rows)
    }


def forms(audio: np.ndarray, *, silence: float, rng: np.random.Generator) -> Iterator[tuple[float, np.ndarray]]:
    """(1, a clip up to where its speech ends) and (0, up to a quiet place within it), both with silence behind."""
    window = QUESTION_RATE // 40
    level = np.sqrt(np.convolve(np.square(audio), np.ones(window) / window, "same"))
    loud = np.flatnonzero(level > level.max() * 10 ** (-_QUIET / 20))
    if len(loud) == 0 or loud[-1] - loud[0] < QUESTION_RATE // 2:
        return
    begin, end = int(loud[0]), int(loud[-1])
    floor = float(np.sort(level)[: max(1, len(level) // 20)].mean())

    def upto(place: int) -> np.ndarray:
        kept = audio[:place].astype(np.float32)
        fade = min(QUESTION_RATE // 100, len(kept))
        kept[len(kept) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        rest = rng.normal(0, floor, round(silence * QUESTION_RATE)).astype(np.float32)
        return np.concatenate([kept, rest])

    yield 1.0, upto(end + QUESTION_RATE // 80)
    near, reach = int(begin + (end - begin) * rng.uniform(0.25, 0.85)), QUESTION_RATE * 3 // 20
    first = max(begin, near - reach)
    place = first + int(level[first : near + reach].argmin())
    if place - begin > QUESTION_RATE * 3 // 10:
        yield 0.0, upto(place)
