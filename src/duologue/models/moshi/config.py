"""Shape of Moshi's language model. Source: Defossez et al. 2024, arXiv:2410.00037, section 3.4."""

from __future__ import annotations

from dataclasses import dataclass, field

from duologue.errors import ConfigError
from duologue.nn.window_transformer import WindowConfig

ZERO = -1  # in place of a token: nothing is heard or said there; its embedding is zero
UNGENERATED = -2  # in place of a token: not known (yet), to be drawn


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Shape of the depth transformer: the codebooks of one frame, one after another. Defaults: Moshi's."""

    steps: int = 8  # codebooks that it can say
    dim: int = 1024
    layers: int = 6
    heads: int = 16
    kv_heads: int | None = None  # None: as many as heads
    ffn_dims: tuple[int, ...] = (2816,) * 8  # of each set of weights
    schedule: tuple[int, ...] | None = None  # which set of weights each step uses; None: its own
    inputs_per_step: bool = True  # what comes from the temporal transformer is projected for each set of weights
    low_rank: int | None = None  # width of the embedding tables, if they are projected up
    norm: str = "rms"
    norm_eps: float = 1e-8
    head_norm: bool = False  # a norm before each step's head
    head_norm_eps: float = 1e-8

    def __post_init__(self):
        if self.steps < 1 or len(self.weight_of) != self.steps or set(self.weight_of) != set(range(self.sets)):
            raise ConfigError(f"depth: schedule must give each of {self.steps} steps a set of weights, got {self}")
        if len(self.ffn_dims) != self.sets:
            raise ConfigError(f"depth: need {self.sets} ffn_dims, one a set of weights, got {len(self.ffn_dims)}")
        if self.dim % self.heads or self.heads % self.key_heads:
            raise ConfigError(f"depth: heads must divide dim, and kv_heads must divide heads, got {self}")

    @property
    def key_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def weight_of(self) -> tuple[int, ...]:
        """The set of weights of each step."""
        return tuple(range(self.steps)) if self.schedule is None else self.schedule

    @property
    def sets(self) -> int:
        return max(self.weight_of) + 1


@dataclass(frozen=True, kw_only=True)
class ConditionConfig:
    """Something that a conversation is told about itself, one of a set of values, by a learnt vector for each."""

    name: str
    bins: int  # rows of the table; the first ones are the values', in order
    dim: int  # of the table, which is projected to the model's
    values: tuple[str, ...] | None = None  # None: any text, and its hash says which row

    def __post_init__(self):
        values = self.values or ()
        if self.bins < max(1, len(values)) or len(set(values)) != len(values) or self.dim < 1:
            raise ConfigError(f"condition {self.name!r}: need different values and a row for each, got {self}")


@dataclass(frozen=True, kw_only=True)
class MoshiConfig:
    """Shape of the whole language model. Defaults: the released 7B.

    Streams, in this order: text, own codebooks, heard codebooks.
    """

    temporal: WindowConfig = field(default_factory=WindowConfig)
    depth: DepthConfig | None = field(default_factory=DepthConfig)  # None: a model that says nothing, a recogniser
    codebooks: int = 16  # own and heard ones
    own_codebooks: int = 8
    codebook_size: int = 2048
    text_vocab: int = 32_000
    text_vocab_out: int | None = None  # where it may say fewer pieces, or other ones, than it reads
    second_text_stream: bool = False  # two text streams, read as one number (arXiv:2509.08753, section 3)
    delays: tuple[int, ...] = (0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1)  # frames, of each stream
    padding_id: int = 3  # text of a frame in which no piece begins
    end_padding_id: int = 0  # the last of them before a word
    head_bias: bool = False
    extra_heads: int = 0  # further heads beside the text's, of few classes each
    extra_head_dim: int = 6
    # frames after which a head writes down a word that began to be heard; it reads what it wrote. None: no head
    hear_delay: int | None = None
    text_lead: int = 0  # frames by which own words may come before their sound once a turn has begun; training's
    conditions: tuple[ConditionConfig, ...] = ()  # added to the input of every step

    def __post_init__(self):
        if len({condition.name for condition in self.conditions}) != len(self.conditions):
            raise ConfigError(f"conditions: need different names, got {self.conditions}")
        if len(self.delays) != 1 + self.codebooks or min(self.delays) < 0:
            raise ConfigError(f"need {1 + self.codebooks} delays of 0 or more, text first, got {self.delays}")
        if not 0 <= self.own_codebooks <= min(self.codebooks, self.depth_steps):
            raise ConfigError(
                f"own_codebooks must be within codebooks ({self.codebooks}) and the depth transformer's steps "
                f"({self.depth_steps}), got {self.own_codebooks}"
            )

    @property
    def depth_steps(self) -> int:
        return 0 if self.depth is None else self.depth.steps

    @property
    def heard_codebooks(self) -> int:
        return self.codebooks - self.own_codebooks

    @property
    def max_delay(self) -> int:
        return max(self.delays)

    @property
    def text_outputs(self) -> int:
        return self.text_vocab if self.text_vocab_out is None else self.text_vocab_out
