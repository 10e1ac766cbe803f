"""Takes out of a microphone's sound what the loudspeaker beside it plays: the server knows what it sent.

Three parts, for one stream at 16 kHz, in blocks of 32 ms. Where the echo begins is found from the cross-spectrum of
what was sent and what came back, whitened by both (Knapp and Carter 1976). From there on a partitioned-block adaptive
filter in the frequency domain (Soo and Pang 1990) follows the loudspeaker and the room; how far it moves at each
frequency is a Kalman gain (Enzner and Vary 2006; in partitions Kuech, Mabande and Enzner 2014), which is what keeps
it still while somebody speaks over the echo. How much of the echo is left behind is learned from how the rest follows
the estimate (the regression of Valin 2007), so that it can be told whether there is more in a block than echo.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.errors import AudioError, ConfigError

SAMPLE_RATE = 16_000  # Hz
BLOCK = 512  # samples; a window of the voice detector
_HOP = 4  # blocks between looks for the delay
_TINY = 1e-10
_SILENT = 1e-4  # a reference below this (-80 dB) plays nothing
_FOUND_AGAIN = 0.8  # seconds of echo in which it is looked for
_WORTH = 0.3  # of the power, that must have been taken out lately
_FIRST = (0, 1, 2, 4, 8)  # looks after an echo was found at which the filter is solved for
_YOUNG = 4  # looks in which it is not to be relied on
_STEPS = 30  # of a solution
_BANDS = np.unique(np.geomspace(8, 224, 17).astype(int))  # edges among 257 frequencies, 250 Hz to 7 kHz
_WINDOW = np.hanning(BLOCK).astype(np.float32)
_PRIOR = 1e-4  # variance of an echo's first sample

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class EchoConfig:
    """How long an echo may be away and how fast it is followed."""

    longest_delay: float = 0.512  # seconds between the reference and its first sound in the microphone
    room: float = 0.256  # seconds that an echo lasts
    early: float = 0.008  # seconds before its strongest sound that belong to it
    peak: float = 10.0  # of the correlation over its own noise, that count as an echo
    memory: float = 0.8  # seconds over which the delay is looked for
    stiffness: float = 0.9995  # how little a room changes in a block; 1: never
    doubt: float = 0.5  # the squared gain that an echo may have before anything is known of it
    learn: float = 1.0  # seconds of sound that has passed already, from which a filter begins
    doubtful: float = 1.0  # seconds of the first reference in which any sound may be an echo that is not known yet
    margin: float = 8.0  # by which power must exceed the echo that is left, to be something else

    def __post_init__(self):
        lengths = (self.longest_delay, self.room, self.early, self.memory, self.learn)
        if min(lengths) <= 0 or max(lengths) > 2:
            raise ConfigError(f"EchoConfig: need lengths of more than 0 and at most 2 seconds, got {self}")
        if not 0 < self.stiffness <= 1 or min(self.peak, self.margin, self.doubt) <= 0:
            raise ConfigError(f"EchoConfig: need 0 < stiffness <= 1, and positive peak, margin and doubt; got {self}")

    @property
    def partitions(self) -> int:
        return max(1, round(self.room * SAMPLE_RATE / BLOCK))

    @property
    def longest(self) -> int:
        """Samples of the longest delay, whole blocks."""
        return -(-round(self.longest_delay * SAMPLE_RATE) // BLOCK) * BLOCK


@dataclass
class EchoState:
    """The memory of one stream, changed in place. N sample (newest last), P partition, F frequency."""

    microphone_N: Array  # what has passed
    reference_N: Array
    held_microphone_N: Array  # less than a block
    held_reference_N: Array
    look_CF: Array  # slow means of the cross-spectrum and of both powers, complex
    filter_PF: Array
    doubt_PF: Array  # the filter's expected error, squared
    spectra_PF: Array  # of the reference, newest first
    rest_F: Array  # power of what is not explained
    last_B: Array  # the estimate's power in the last block
    gain_B: Array  # of the echo, power, while the filter is young
    loud_B: Array  # the echo's greatest power lately
    leak_B: Array  # of the estimate's power that is left in the rest, by band
    delay: int | None = None  # samples; None: no echo is known
    likely: int | None = None  # a delay that waits to be confirmed
    blocks: int = 0
    looked: int = 0  # looks since the echo was found
    quiet: int = 1_000_000  # blocks since the reference fell silent
    before: float = 0.0  # power of the last blocks
    after: float = 0.0  # ... of what was left of them
    worth: float = 0.0  # the best share that was taken out lately
    frozen: int = 0  # blocks to come of which nothing is learned
    unsure: bool = False  # ... and which may hold an echo that is not expected
    near: bool = True  # whether the last block holds something else than echo


class EchoCanceller:
    """Any chunks in, whole blocks out."""

    def __init__(self, config: EchoConfig | None = None):
        self.config = config or EchoConfig()
        learn = round(self.config.learn * SAMPLE_RATE / BLOCK)
        self._learn, self._partitions = learn, self.config.partitions
        self._history = self.config.longest + (learn + self._partitions + 2) * BLOCK
        self._echoes = self.config.longest // BLOCK + self._partitions  # blocks in which silence still echoes
        self._doubtful = round(self.config.doubtful * SAMPLE_RATE / BLOCK)
        self._forget = float(np.exp(-_HOP * BLOCK / SAMPLE_RATE / self.config.memory))

    def init_state(self) -> EchoState:
        look = (self.config.longest + _HOP * BLOCK) // 2 + 1
        return EchoState(
            microphone_N=np.zeros(self._history, np.float32),
            reference_N=np.zeros(self._history, np.float32),
            held_microphone_N=np.zeros(0, np.float32),
            held_reference_N=np.zeros(0, np.float32),
            look_CF=np.zeros((3, look), np.complex64),
            **self._fresh(),
        )

    def _fresh(self) -> dict[str, Any]:
        shape = (self._partitions, BLOCK + 1)
        fading = np.exp(-np.arange(self._partitions) / 2.0)[:, None]
        return {
            "filter_PF": np.zeros(shape, np.complex64),
            "doubt_PF": np.broadcast_to(self.config.doubt * fading, shape).astype(np.float32),
            "spectra_PF": np.zeros(shape, np.complex64),
            "rest_F": np.zeros(BLOCK + 1, np.float32),
            "last_B": np.zeros(len(_BANDS) - 1, np.float32),
            "gain_B": np.zeros(len(_BANDS) - 1, np.float32),
            "loud_B": np.zeros(len(_BANDS) - 1, np.float32),
            "leak_B": np.ones(len(_BANDS) - 1, np.float32),
        }

    def jump(self, state: EchoState, *, goes: bool) -> None:
        """Tells that what plays begins here, or goes on, or stands still.

        A client needs longer for the one than for the other, and never equally long. So nothing is learned until the
        echo was found again, or should have been.
        """
        if state.delay is not None:
            state.look_CF[:] = 0
            state.likely = None
            state.frozen = state.delay // BLOCK + round(_FOUND_AGAIN * SAMPLE_RATE / BLOCK)
            state.unsure = goes

    def __call__(self, microphone_N: Array, reference_N: Array, state: EchoState) -> Array:
        """The microphone's next samples without the echo of what was played, as many whole blocks as there are.

        Args:
            reference_N: what was sent to be played at the same time or up to `longest_delay` before it is heard.
        Raises:
            AudioError: not as much of one as of the other.
        """
        if len(microphone_N) != len(reference_N):
            raise AudioError(
                f"echo: need as much reference as microphone, got {len(reference_N)} and {len(microphone_N)} samples; "
                "hand in zeros where nothing plays"
            )
        microphone = np.concatenate([state.held_microphone_N, microphone_N]).astype(np.float32)
        reference = np.concatenate([state.held_reference_N, reference_N]).astype(np.float32)
        whole = len(microphone) - len(microphone) % BLOCK
        state.held_microphone_N, state.held_reference_N = microphone[whole:], reference[whole:]
        found = [
            self._block(microphone[start : start + BLOCK], reference[start : start + BLOCK], state)
            for start in range(0, whole, BLOCK)
        ]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _block(self, microphone: Array, reference: Array, state: EchoState) -> Array:
        state.microphone_N = np.concatenate([state.microphone_N[BLOCK:], microphone])
        state.reference_N = np.concatenate([state.reference_N[BLOCK:], reference])
        state.quiet = 0 if np.abs(reference).max() > _SILENT else state.quiet + 1
        state.near = True
        if state.quiet > self._echoes:
            return microphone
        state.blocks += 1
        if state.blocks % _HOP == 0:
            self._look(state)
            if state.delay is not None and state.looked <= _FIRST[-1]:
                if state.looked in _FIRST:
                    self._solve(state)
                    state.gain_B = self._gain(state)
                state.looked += 1
        if state.delay is None:
            state.near = state.blocks > self._doubtful
            return microphone
        return self._cancel(state)

    # -- the delay ----------------------------------------------------------------------------------------------------

    def _look(self, state: EchoState) -> None:
        hop = _HOP * BLOCK
        size = self.config.longest + hop
        heard = np.fft.rfft(state.microphone_N[-hop:] * _soft_edges(hop), size)
        sent = np.fft.rfft(state.reference_N[-size:] * _soft_edges(size))
        state.look_CF *= self._forget
        state.look_CF += np.stack([heard.conj() * sent, np.abs(heard) ** 2, np.abs(sent) ** 2])
        cross, power, sent_power = state.look_CF
        weight = 1 / np.sqrt(power.real * sent_power.real + _TINY)
        hertz = np.arange(len(cross)) * SAMPLE_RATE / size
        weight[(hertz < 150) | (hertz > 7000)] = 0
        whole = np.abs(np.fft.irfft(cross * weight))
        found = whole[self.config.longest :: -1]  # by delay
        delay = int(found.argmax())
        self.last_peak = float(found[delay] / (np.sqrt(np.mean(whole**2)) + _TINY))
        if self.last_peak < self.config.peak:
            state.likely = None
            return
        begin = max(0, delay - round(self.config.early * SAMPLE_RATE))
        confirmed = state.likely is not None and abs(state.likely - begin) <= 16
        state.likely = begin
        if confirmed or self.last_peak > 1.4 * self.config.peak:
            self._settle(begin, state)

    def _settle(self, begin: int, state: EchoState) -> None:
        known = state.frozen == 0
        if state.frozen:
            state.frozen, state.leak_B = 0, np.maximum(state.leak_B, 0.5)
        if state.delay is not None and abs(begin - state.delay) <= 2:
            return
        if state.delay is not None:
            now, then = (self._unexplained(delay, state) for delay in (state.delay, begin))
            if now < min(then, 0.5):
                return
            if then < 0.5 or not known:
                state.delay = begin
                self._spectra(state, 0)
                return
        state.delay, state.looked = begin, 0
        for name, value in self._fresh().items():
            setattr(state, name, value)
        self._spectra(state, 1)

    def _sent(self, state: EchoState, back: int) -> Array:
        """Spectrum of the reference under the block that passed `back` blocks ago, with the one before it."""
        end = len(state.reference_N) - back * BLOCK - (state.delay or 0)
        return np.fft.rfft(state.reference_N[end - 2 * BLOCK : end]).astype(np.complex64)

    def _spectra(self, state: EchoState, back: int) -> None:
        state.spectra_PF = np.stack([self._sent(state, back + number) for number in range(self._partitions)])

    def _unexplained(self, delay: int, state: EchoState) -> float:
        """The share of the last quarter of a second that the present filter would leave with another delay."""
        kept, state.delay = (state.delay, state.spectra_PF), delay
        rest = sound = _TINY
        for back in range(7, -1, -1):
            end = len(state.microphone_N) - back * BLOCK
            block = state.microphone_N[end - BLOCK : end]
            self._spectra(state, back)
            estimate = np.fft.irfft((state.spectra_PF * state.filter_PF).sum(0))[BLOCK:]
            rest, sound = rest + float(((block - estimate) ** 2).sum()), sound + float((block**2).sum())
        state.delay, state.spectra_PF = kept
        return rest / sound

    # -- the filter ---------------------------------------------------------------------------------------------------

    def _cancel(self, state: EchoState) -> Array:
        rest, estimate = self._adapt(state, 0)
        state.frozen = max(0, state.frozen - 1)
        more, block = self._more(rest, estimate, state), state.microphone_N[-BLOCK:]
        before, after = float(block @ block), float(rest @ rest)
        state.before, state.after = 0.9 * state.before + 0.1 * before, 0.9 * state.after + 0.1 * after
        state.worth = max(0.998 * state.worth, 1 - state.after / (state.before + _TINY))
        state.near = more
        if (
            state.worth < _WORTH and state.looked > _FIRST[-1]
        ):  # it plays so faintly, or is taken out by another already, that there is only to lose
            state.near = True
            return block
        return rest if after < before else block

    def _adapt(self, state: EchoState, back: int) -> tuple[Array, Array]:
        """Takes the echo out of the block that passed `back` blocks ago, and learns from it."""
        config = self.config
        end = len(state.microphone_N) - back * BLOCK
        state.spectra_PF = np.concatenate([self._sent(state, back)[None], state.spectra_PF[:-1]])
        sent_PF = state.spectra_PF
        estimate = np.fft.irfft((sent_PF * state.filter_PF).sum(0))[BLOCK:].astype(np.float32)
        rest = state.microphone_N[end - BLOCK : end] - estimate
        if state.frozen:
            return rest, estimate
        rest_F = np.fft.rfft(np.concatenate([np.zeros(BLOCK, np.float32), rest])).astype(np.complex64)
        power_PF = np.abs(sent_PF) ** 2
        state.rest_F = 0.5 * state.rest_F + 0.5 * np.abs(rest_F) ** 2
        expected_F = (state.doubt_PF * power_PF).sum(0)
        gain_PF = state.doubt_PF / (expected_F + 2 * state.rest_F + _TINY)
        step_PT = np.fft.irfft(gain_PF * sent_PF.conj() * rest_F)
        step_PT[:, BLOCK:] = 0
        state.filter_PF = (config.stiffness * (state.filter_PF + np.fft.rfft(step_PT))).astype(np.complex64)
        state.doubt_PF *= config.stiffness**2 * (1 - 0.5 * gain_PF * power_PF)
        state.doubt_PF += (1 - config.stiffness**2) * np.abs(state.filter_PF) ** 2
        return rest, estimate

    def _solve(self, state: EchoState) -> None:
        """The filter that explains the last second best, by conjugate gradients from the present one.

        The prior is an echo that fades; the sum over it is taken in whole, so that a filter is there long before an
        adaptive one would be.
        """
        taps, count = self._partitions * BLOCK, self._learn * BLOCK
        end = len(state.reference_N) - (state.delay or 0)
        sent, heard = state.reference_N[end - count - taps + 1 : end], state.microphone_N[-count:]
        size = 1 << (len(sent) - 1).bit_length()
        sent_F = np.fft.rfft(sent, size)
        fading = np.sqrt(_PRIOR * np.exp(-np.arange(taps, dtype=np.float32) / (taps / 2)))

        def apply(response: Array) -> Array:
            return np.fft.irfft(sent_F * np.fft.rfft(response * fading, size))[taps - 1 : len(sent)]

        def correlate(rest: Array) -> Array:
            padded = np.pad(rest, (taps - 1, size - len(sent)))
            return np.fft.irfft(sent_F.conj() * np.fft.rfft(padded))[:taps] * fading

        begun = np.fft.irfft(state.filter_PF)[:, :BLOCK].reshape(-1)
        rest = heard - np.fft.irfft(sent_F * np.fft.rfft(begun, size))[taps - 1 : len(sent)]
        noise = 0.1 * float(np.mean(rest**2)) + _TINY
        found: Array = np.zeros(taps, np.float32)
        left = correlate(rest)
        along, power = left, float(left @ left)
        for _ in range(_STEPS):
            moved = correlate(apply(along)) + noise * along
            step = power / (float(along @ moved) + _TINY)
            found, left = found + step * along, left - step * moved
            power, before = float(left @ left), power
            along = left + power / (before + _TINY) * along
        response = np.zeros((self._partitions, 2 * BLOCK), np.float32)
        response[:, :BLOCK] = (begun + fading * found).reshape(-1, BLOCK)
        state.filter_PF = np.fft.rfft(response).astype(np.complex64)

    def _gain(self, state: EchoState) -> Array:
        """How much stronger the microphone was than what was sent, over the last second."""
        count, end = self._learn * BLOCK, len(state.reference_N) - (state.delay or 0)
        pairs = (state.microphone_N[-count:], state.reference_N[end - count : end])
        heard_B, sent_B = (_bands(one.reshape(-1, BLOCK)).sum(0) for one in pairs)
        return heard_B / (sent_B + _TINY)

    def _more(self, rest: Array, estimate: Array, state: EchoState) -> bool:
        """Whether the rest is more than what the filter leaves of an echo."""
        end = len(state.reference_N) - (state.delay or 0)
        own_B, echo_B, sent_B = _bands(np.stack([rest, estimate, state.reference_N[end - BLOCK : end]]))
        echo_B, state.last_B = np.maximum(echo_B, 0.5 * state.last_B), echo_B
        young = state.looked <= _YOUNG
        state.loud_B = np.maximum(state.gain_B * sent_B if young else echo_B, 0.97 * state.loud_B)
        if young or (state.frozen and state.unsure):
            return bool((own_B > 2 * state.loud_B).mean() >= 0.5)
        ratio_B = np.minimum(own_B / echo_B, 10.0)
        more = bool((ratio_B > self.config.margin * state.leak_B).mean() >= 0.5)
        if not state.frozen:
            fall = np.where(ratio_B < state.leak_B, 0.3, 0.0)
            state.leak_B = np.clip(state.leak_B * (ratio_B / state.leak_B) ** fall * 1.01, 0.001, 1.0)
        return more


def _bands(blocks_BN: Array) -> Array:
    """Power of blocks in bands of hearing."""
    power = np.abs(np.fft.rfft(blocks_BN * _WINDOW)) ** 2
    return np.add.reduceat(power, _BANDS, axis=1)[:, :-1] + _TINY


@functools.lru_cache(maxsize=4)
def _soft_edges(size: int) -> Array:
    """A window that is level but for its ends: where two pieces are cut at one place, the cuts look alike."""
    edge = np.sin(np.linspace(0, np.pi / 2, BLOCK, dtype=np.float32)) ** 2
    return np.concatenate([edge, np.ones(size - 2 * BLOCK, np.float32), edge[::-1]])
