"""Residual vector quantisation, split into a semantic and an acoustic part, as in Mimi.

Every codebook is what an exponential moving average made of it: a vector is the sum of what was assigned to it over how
often it was used. Training moves these averages (no gradient does), begins a codebook with k-means and revives codes
that nothing is assigned to; eval mode never changes them. Where several processes train together, each learns from the
batches of all: all of them must call a quantiser in training mode equally often.

Sources: residual quantisation, k-means and revival as in SoundStream (Zeghidour et al. 2021, arXiv:2107.03312); the
split and quantising half of the batch as in Mimi (Defossez et al. 2024, arXiv:2410.00037, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import ConfigError, ShapeError
from duologue.nn.workers import from_first, summed

FLOOR = 1e-5  # least usage that a sum is divided by


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Shape of a split quantiser and how it learns. Defaults: Mimi."""

    dim: int = 512  # of what is quantised
    code_dim: int = 256  # of the codebooks
    codebook_size: int = 2048
    semantic: int = 1  # codebooks of the first part
    codebooks: int = 32  # of both parts
    decay: float = 0.99  # of the moving averages
    revive_below: float = 0.1  # a code used less than this times the mean use begins anew
    quantize_rate: float = 0.5  # in training, the part of the batch that is quantised; the rest passes as it is

    def __post_init__(self):
        if not 1 <= self.semantic < self.codebooks:
            raise ConfigError(f"QuantizerConfig: need 1 <= semantic < codebooks, got {self}")
        if not 0 <= self.quantize_rate <= 1 or not 0 < self.decay < 1:
            raise ConfigError(f"QuantizerConfig: need quantize_rate in [0, 1] and decay in (0, 1), got {self}")


@dataclass(frozen=True)
class Quantized:
    """What training gets."""

    x_BTD: Tensor  # quantised where the batch row was chosen; gradients pass straight through
    semantic_BTD: Tensor  # the semantic part's share of it
    codes_BKT: Tensor
    commitment: Tensor  # mean squared distance of what a codebook was given to what it gave, in mean squares of all
    revived: int  # codes that began anew in this step


class Codebook(nn.Module):
    """Vectors, each the nearest one of its part of space."""

    initialized: Tensor
    usage: Tensor
    total: Tensor

    def __init__(self, size: int, dim: int, *, decay: float = 0.99, revive_below: float = 0.1):
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("initialized", torch.zeros(1))  # 1: the vectors mean something
        self.register_buffer("usage", torch.ones(size))  # moving average of how many vectors a step gives to each code
        self.register_buffer("total", torch.zeros(size, dim))  # and of their sum
        self._derived: tuple[object, Tensor, Tensor] | None = None

    def vectors(self) -> tuple[Tensor, Tensor]:
        """The codebook [V, D], and minus half of each squared length [V]; worked out again when the averages moved."""
        mark = tuple(
            (buffer.data_ptr(), 0 if buffer.is_inference() else buffer._version) for buffer in (self.usage, self.total)
        )
        if self._derived is None or self._derived[0] != mark:
            vectors = self.total / self.usage.clamp(min=FLOOR)[:, None]
            self._derived = mark, vectors, vectors.square().sum(-1) / -2
        return self._derived[1:]

    def nearest(self, x_ND: Tensor) -> Tensor:
        """Number of the nearest vector; of several at the same distance, the first."""
        vectors, offsets = self.vectors()
        return F.linear(x_ND, vectors, offsets).argmax(-1)  # |x - v|^2 = |x|^2 - 2 (x.v - |v|^2 / 2)

    @torch.no_grad()
    def learn(self, x_ND: Tensor, codes_N: Tensor) -> int:
        """Moves the averages towards a batch and its codes; first revives unused codes from it. Returns how many."""
        mean = self.usage.mean()
        unused_V = self.usage < self.revive_below * mean
        count = int(unused_V.sum())
        if count:
            self.total[unused_V] = from_first(_draw(x_ND, count)) * mean
            self.usage[unused_V] = mean
        hits_V = torch.bincount(codes_N, minlength=len(self.usage)).to(self.usage)
        self.usage.lerp_(summed(hits_V), 1 - self.decay)
        self.total.lerp_(summed(torch.zeros_like(self.total).index_add_(0, codes_N, x_ND)), 1 - self.decay)
        return count

    @torch.no_grad()
    def begin(self, x_ND: Tensor, rounds: int = 50) -> None:
        """Sets the vectors by k-means over a batch, of several processes that of the first."""
        size = len(self.usage)
        means_VD = _draw(x_ND, size)
        for _ in range(rounds):
            nearest_N = torch.cdist(x_ND, means_VD).argmin(-1)
            hits_V = torch.bincount(nearest_N, minlength=size)
            sums_VD = torch.zeros_like(means_VD).index_add_(0, nearest_N, x_ND)
            means_VD = torch.where(hits_V[:, None] > 0, sums_VD / hits_V.clamp(min=1)[:, None], _draw(x_ND, size))
        # A code that nothing is assigned to keeps its vector, but is the first to be revived.
        hits_V = from_first(hits_V.float().clamp(min=self.revive_below * len(x_ND) / size))
        self.usage.copy_(hits_V)
        self.total.copy_(from_first(means_VD) * hits_V[:, None])
        self.initialized.fill_(1)

    @torch.no_grad()
    def weigh(self, vectors: int) -> None:
        """Makes what it has learnt weigh as much as steps of so many vectors do."""
        scale = vectors / self.usage.sum()
        self.usage.mul_(scale)
        self.total.mul_(scale)


class ResidualQuantizer(nn.Module):
    """Each codebook quantises what the ones before it left over, in a space of its own."""

    def __init__(self, config: QuantizerConfig, codebooks: int):
        super().__init__()
        c = config
        self.input = nn.Linear(c.dim, c.code_dim, bias=False)
        self.output = nn.Linear(c.code_dim, c.dim, bias=False)
        self.codebooks = nn.ModuleList(
            Codebook(c.codebook_size, c.code_dim, decay=c.decay, revive_below=c.revive_below) for _ in range(codebooks)
        )

    def books(self, count: int) -> list[Codebook]:
        """The first `count` codebooks."""
        return [book for book in self.codebooks[:count] if isinstance(book, Codebook)]

    def encode(self, x_BTD: Tensor, codebooks: int) -> Tensor:
        """Codes of the first `codebooks` codebooks, [B, K, T]."""
        rest_ND = self.input(x_BTD).flatten(0, 1).float()
        codes = []
        for book in self.books(codebooks):
            codes_N = book.nearest(rest_ND)
            rest_ND = rest_ND - book.vectors()[0][codes_N]
            codes.append(codes_N.view(x_BTD.shape[:2]))
        return torch.stack(codes, dim=1)

    def decode(self, codes_BKT: Tensor) -> Tensor:
        """The sum of the codes' vectors, [B, T, D]."""
        books = self.books(codes_BKT.shape[1])
        found = [book.vectors()[0][codes_BT] for book, codes_BT in zip(books, codes_BKT.unbind(1), strict=True)]
        return self.output(sum(found[1:], found[0]).to(self.output.weight.dtype))

    @torch.no_grad()
    def begin(self, x_BTD: Tensor, codebooks: int, step: int) -> None:
        """`SplitQuantizer.begin` of its first codebooks."""
        rest_ND = self.input(x_BTD).flatten(0, 1).float()
        for book in self.books(codebooks):
            book.begin(rest_ND)
            rest_ND = rest_ND - book.vectors()[0][book.nearest(rest_ND)]
            book.weigh(step)

    def unquantized(self, x_BTD: Tensor) -> Tensor:
        """What it gives where every vector is its own code."""
        return self.output(self.input(x_BTD))

    def forward(self, x_BTD: Tensor, codebooks: int, quantized_B: Tensor) -> Quantized:
        """Quantises for training; in training mode the codebooks learn. At most one codebook begins in a step, as the
        k-means of the next one would see residues that the same batch made small.

        Returns:
            Its commitment is a sum over the codebooks, as a share of the mean square of what is quantised.
        """
        x_ND = self.input(x_BTD).flatten(0, 1).float()
        size = x_ND.detach().square().mean().clamp(min=FLOOR)
        rest_ND, codes, commitment, revived, begun = x_ND, [], x_ND.new_zeros(()), 0, True
        for book in self.books(codebooks):
            was_begun = bool(book.initialized)
            if self.training and begun and not was_begun:
                book.begin(rest_ND.detach())
            begun = was_begun
            codes_N = book.nearest(rest_ND.detach())
            given_ND = book.vectors()[0][codes_N]
            if bool(book.initialized):
                commitment = commitment + F.mse_loss(rest_ND, given_ND) / size
                revived += book.learn(rest_ND.detach(), codes_N) if self.training else 0
            rest_ND = rest_ND - given_ND
            codes.append(codes_N.view(x_BTD.shape[:2]))
        through_ND = x_ND - rest_ND.detach()  # the sum of what was given; gradients as if it were x
        shape = (*x_BTD.shape[:2], -1)
        y_BTD = torch.where(quantized_B[:, None, None], through_ND.view(shape), x_ND.view(shape))
        y_BTD = self.output(y_BTD)
        return Quantized(y_BTD, y_BTD, torch.stack(codes, dim=1), commitment, revived)


class SplitQuantizer(nn.Module):
    """A semantic and an acoustic residual quantiser side by side; their outputs are added."""

    def __init__(self, config: QuantizerConfig):
        super().__init__()
        self.config = config
        self.semantic = ResidualQuantizer(config, config.semantic)
        self.acoustic = ResidualQuantizer(config, config.codebooks - config.semantic)

    def encode(self, x_BTD: Tensor, num_codebooks: int) -> Tensor:
        """Codes of the first `num_codebooks` codebooks, codes_BKT.

        Raises:
            ShapeError: a number of codebooks that the quantiser does not have.
        """
        acoustic = self._acoustic(num_codebooks)
        codes_BKT = self.semantic.encode(x_BTD, self.config.semantic)
        return torch.cat([codes_BKT, self.acoustic.encode(x_BTD, acoustic)], dim=1) if acoustic else codes_BKT

    def decode(self, codes_BKT: Tensor) -> Tensor:
        """What the codes stand for, [B, T, D]; K may be any number of codebooks that the quantiser has.

        Raises:
            ShapeError: another number of codebooks, or a number that is no code (checked on a CPU only).
        """
        c = self.config
        acoustic = self._acoustic(codes_BKT.shape[1])
        if codes_BKT.device.type == "cpu" and codes_BKT.numel():
            low, high = (int(value) for value in codes_BKT.aminmax())
            if low < 0 or high >= c.codebook_size:
                raise ShapeError(
                    f"SplitQuantizer: need codes from 0 to {c.codebook_size - 1}, got {low} to {high}. "
                    "Tokens that stand for no sound must not reach the codec."
                )
        x_BTD = self.semantic.decode(codes_BKT[:, : c.semantic])
        return x_BTD + self.acoustic.decode(codes_BKT[:, c.semantic :]) if acoustic else x_BTD

    def forward(self, x_BTD: Tensor, num_codebooks: int, *, generator: torch.Generator | None = None) -> Quantized:
        """Quantises for training. In training mode the codebooks learn and only a part of the batch is quantised.

        Args:
            generator: chooses that part; None: torch's own.
        """
        acoustic = self._acoustic(num_codebooks)
        rate = self.config.quantize_rate if self.training else 1.0
        draw_B = torch.rand(len(x_BTD), generator=generator, device="cpu" if generator is None else generator.device)
        quantized_B = (draw_B < rate).to(x_BTD.device)
        parts = [self.semantic(x_BTD, self.config.semantic, quantized_B)]
        if acoustic:
            parts.append(self.acoustic(x_BTD, acoustic, quantized_B))
        return Quantized(
            x_BTD=torch.stack([part.x_BTD for part in parts]).sum(0),
            semantic_BTD=parts[0].x_BTD,
            codes_BKT=torch.cat([part.codes_BKT for part in parts], dim=1),
            commitment=torch.stack([part.commitment for part in parts]).sum() / num_codebooks,
            revived=sum(part.revived for part in parts),
        )

    def begin(self, x_BTD: Tensor, num_codebooks: int, *, step: int) -> None:
        """Sets the codebooks by k-means over many vectors, many times as many as there are codes.

        Args:
            step: vectors in a step of the training that follows; what was begun here fades as if such steps had made it
        """
        self.semantic.begin(x_BTD, self.config.semantic, step)
        self.acoustic.begin(x_BTD, self._acoustic(num_codebooks), step)

    def begun(self, num_codebooks: int) -> list[bool]:
        """Which of the first codebooks mean something."""
        books = [*self.semantic.books(self.config.semantic), *self.acoustic.books(self._acoustic(num_codebooks))]
        return [bool(book.initialized) for book in books]

    def unquantized(self, x_BTD: Tensor) -> Quantized:
        """Both parts' projections and no codes (zeros stand for them): for a training whose codebooks begin later."""
        semantic_BTD = self.semantic.unquantized(x_BTD)
        codes_BKT = x_BTD.new_zeros(len(x_BTD), self.config.codebooks, x_BTD.shape[1], dtype=torch.int64)
        return Quantized(
            semantic_BTD + self.acoustic.unquantized(x_BTD), semantic_BTD, codes_BKT, x_BTD.new_zeros(()), 0
        )

    def _acoustic(self, num_codebooks: int) -> int:
        """How many acoustic codebooks a number of codebooks means."""
        c = self.config
        if not c.semantic <= num_codebooks <= c.codebooks:
            raise ShapeError(
                f"SplitQuantizer: need {c.semantic} to {c.codebooks} codebooks, got {num_codebooks}. "
                "Were the codes made by another codec?"
            )
        return num_codebooks - c.semantic


def _draw(x_ND: Tensor, count: int) -> Tensor:
    """Random rows; each at most once where there are enough."""
    number = len(x_ND)
    if number >= count:
        return x_ND[torch.randperm(number, device=x_ND.device)[:count]]
    return x_ND[torch.randint(number, (count,), device=x_ND.device)]
