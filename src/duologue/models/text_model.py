"""Batched text generation with a local language model: what data synthesis and the text baselines call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from duologue.codecs.text import Message, TextCodec, shared
from duologue.nn.transformer import Transformer


class LocalTextModel:
    """Answers many chats at once with one `Transformer`.

    Args:
        batch: rows decoded together; a row that has ended is replaced only when the batch is done.
    """

    def __init__(self, model: Transformer, codec: TextCodec, *, batch: int = 64):
        self.model, self.codec, self.batch = model.eval(), codec, batch

    def complete(
        self,
        chats: Sequence[Sequence[Message]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 0.95,
        seed: int = 0,
        opening: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """One answer a chat, in order; each begins with `opening`, which is forced.

        The same seed and chat give the same answer whatever else is in the call only at temperature 0.
        """
        prompts = [self.codec.chat(chat) + self.codec.encode(opening) for chat in chats]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        answers = [""] * len(prompts)
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, len(order), self.batch):
            rows = order[first : first + self.batch]
            outputs = self.continue_ids(
                [prompts[row] for row in rows],
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=top_p,
                generator=generator,
            )
            for row, ids in zip(rows, outputs, strict=True):
                answers[row] = (opening + self.codec.decode(ids)).strip()
            if progress:
                progress(len(rows))
        return answers

    @torch.inference_mode()
    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_p: float = 0.95,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """Continues ragged prompts together, each until a stop token or `max_tokens`.

        What all of them begin with, such as the instructions, is read once.
        """
        begun = min(shared(prompts), min(map(len, prompts)) - 1)  # of the shortest, one is left over to be read
        device = next(self.model.parameters()).device
        lengths_B = torch.tensor([len(prompt) - begun for prompt in prompts], device=device)
        ids_BT = torch.zeros(len(prompts), int(lengths_B.max()), dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            ids_BT[row, : len(prompt) - begun] = torch.tensor(prompt[begun:], device=device)
        state = self.model.init_state(len(prompts), begun + ids_BT.shape[1] + max_tokens)
        live_B = torch.ones(len(prompts), dtype=torch.bool, device=device)
        if begun:
            one = self.model.init_state(1, begun)
            self.model(self.model.embedding(torch.tensor([prompts[0][:begun]], device=device)), one, live_B[:1])
            state.k_BLHTD[:, :, :, :begun] = one.k_BLHTD
            state.v_BLHTD[:, :, :, :begun] = one.v_BLHTD
            state.length_B.fill_(begun)
        hidden_BTD = self.model(self.model.embedding(ids_BT), state, live_B, lengths_B)
        hidden_B1D = hidden_BTD[torch.arange(len(prompts), device=device), lengths_B - 1][:, None]
        outputs: list[list[int]] = [[] for _ in prompts]
        stops = set(self.codec.stops())
        for _ in range(max_tokens):
            next_B = sample(
                self.model.logits(hidden_B1D)[:, 0], temperature=temperature, top_p=top_p, generator=generator
            )
            for row, token in enumerate(next_B.tolist()):
                if live_B[row] and token in stops:
                    live_B[row] = False
                elif live_B[row]:
                    outputs[row].append(token)
            if not live_B.any():
                break
            hidden_B1D = self.model(self.model.embedding(next_B[:, None]), state, live_B)
        return outputs


def sample(
    logits_BV: Tensor, *, temperature: float, top_p: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Next token of every row: greedy at temperature 0, else nucleus sampling over the 256 best."""
    if temperature == 0:
        return logits_BV.argmax(-1)
    best_BK, index_BK = (logits_BV.float() / temperature).topk(min(256, logits_BV.shape[-1]))
    probs_BK = best_BK.softmax(-1)
    probs_BK = probs_BK.masked_fill(probs_BK.cumsum(-1) - probs_BK > top_p, 0)
    choice_B1 = torch.multinomial(probs_BK.cpu(), 1, generator=generator)  # the generator is of the CPU everywhere
    return index_BK.gather(1, choice_B1.to(index_BK.device))[:, 0]
