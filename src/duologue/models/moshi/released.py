"""Released language models of the Moshi family: `kyutai/moshik{o,a}-pytorch-{bf16,q8}`, PersonaPlex and their like.

Their folder holds `model.safetensors` and often `config.json`; without one it is the 7B. The same layout is written
back. What the code of `moshi` does and the paper does not say: query, key and value of the depth transformer are
stacked by step in one matrix; a norm's weight is `alpha`, [1, 1, D]; q8 is an int8 `weight` beside a float32
`weight_scb`, the greatest number of each row. A condition's projection is `output_proj`, its vector
for none `learnt_padding`, [1, 1, D]. PersonaPlex has a depth transformer of 16 steps, of which the last 8, the user's,
only matter in training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from duologue.errors import CheckpointError
from duologue.models.moshi.config import MoshiConfig
from duologue.models.moshi.model import MoshiModel
from duologue.models.moshi.released_config import from_kyutai, read_config, to_kyutai
from duologue.models.weights import Entry, Table, to_ours, to_theirs
from duologue.nn.quant import quantize, shape_like
from duologue.nn.weight_files import Shards, fill, refuse

WEIGHTS = ("model.safetensors", "model.q8.safetensors")
LARGE = 4_000_000  # numbers of a matrix from which a product of integers takes less time than its preparation
VECTORS = (".alpha", ".learnt_padding")  # that are [1, 1, D] in their files
PRECISE = "conditions."  # what stays as it is, float32, in a model of another type: as theirs does
COPIED = 8  # steps of Moshi's depth transformer, from which PersonaPlex takes those that its file lacks


def moshi_table(config: MoshiConfig) -> Table:
    """The whole model in the names of the `moshi` package, as its modules have them."""
    c, books = config, range(config.codebooks)
    rows = (c.codebook_size + 1,) * c.codebooks
    table = [
        *_embedding("text_embedding", "text_emb", second=c.second_text_stream, low_rank=False),
        Entry("audio_embedding.table.weight", tuple(f"emb.{k}.weight" for k in books), rows),
        *_norm("norm", "out_norm", c.temporal.norm),
        *_head("text_head", "text_linear", c.head_bias),
        *(_linear(f"extra_heads.{i}", f"extra_heads.{i}") for i in range(c.extra_heads)),
    ]
    for i, condition in enumerate(c.conditions):
        a, b = f"conditions.tables.{i}.", f"condition_provider.conditioners.{condition.name}."
        table += [_linear(f"{a}table", f"{b}embed"), _linear(f"{a}projection", f"{b}output_proj")]
        table.append(Entry(f"{a}none", (f"{b}learnt_padding",)))
    for layer in range(c.temporal.layers):
        a, b = f"transformer.layers.{layer}.", f"transformer.layers.{layer}."
        table += _norm(f"{a}attention_norm", f"{b}norm1", c.temporal.norm)
        table += _norm(f"{a}ffn_norm", f"{b}norm2", c.temporal.norm)
        table += [
            _linear(f"{a}attention.qkv", f"{b}self_attn.in_projs.0"),
            _linear(f"{a}attention.out", f"{b}self_attn.out_projs.0"),
            _linear(f"{a}up", f"{b}gating.linear_in"),
            _linear(f"{a}down", f"{b}gating.linear_out"),
        ]
    return table + _depth_table(c)


def _depth_table(config: MoshiConfig) -> Table:
    c = config.depth
    if c is None:
        return []
    num_inputs = c.sets if c.inputs_per_step else 1
    inputs = tuple(f"depformer_in.{i}.weight" for i in range(num_inputs))
    table = [
        Entry("depth.inputs.weight", inputs, (c.dim,) * num_inputs),
        *_embedding(
            "depth.text_embedding",
            "depformer_text_emb",
            second=config.second_text_stream,
            low_rank=c.low_rank is not None,
        ),
    ]
    for step in range(c.steps):
        if step + 1 < c.steps:
            name = f"depth.embeddings.{step}"
            table += _embedding(name, f"depformer_emb.{step}", second=False, low_rank=c.low_rank is not None)
        if c.head_norm:
            table += _norm(f"depth.norms.{step}", f"depformer_norms.{step}", c.norm)
        table += _head(f"depth.heads.{step}", f"linears.{step}", config.head_bias)
    for layer in range(c.layers):
        a, b = f"depth.layers.{layer}.", f"depformer.layers.{layer}."
        table += _norm(f"{a}attention_norm", f"{b}norm1", c.norm)
        table += _norm(f"{a}ffn_norm", f"{b}norm2", c.norm)
        for i in range(c.sets):
            table += [
                _linear(f"{a}sets.{i}.qkv", f"{b}self_attn.in_projs.{i}"),
                _linear(f"{a}sets.{i}.out", f"{b}self_attn.out_projs.{i}"),
                _linear(f"{a}sets.{i}.up", f"{b}gating.{i}.linear_in"),
                _linear(f"{a}sets.{i}.down", f"{b}gating.{i}.linear_out"),
            ]
    return table


def _linear(ours: str, theirs: str) -> Entry:
    return Entry(f"{ours}.weight", (f"{theirs}.weight",))


def _head(ours: str, theirs: str, bias: bool) -> Table:
    kinds = ("weight", "bias") if bias else ("weight",)
    return [Entry(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in kinds]


def _norm(ours: str, theirs: str, kind: str) -> Table:
    if kind == "rms":
        return [Entry(f"{ours}.weight", (f"{theirs}.alpha",))]
    return _head(ours, theirs, bias=True)


def _embedding(ours: str, theirs: str, *, second: bool, low_rank: bool) -> Table:
    table = [Entry(f"{ours}.table.weight", (f"{theirs}.weight",))]
    if second:
        table += [_linear(f"{ours}.first", f"{theirs}.out1"), _linear(f"{ours}.second", f"{theirs}.out2")]
    return [*table, _linear(f"{ours}.up", f"{theirs}.low_rank")] if low_rank else table


def split_steps(tensors: Mapping[str, Tensor], config: MoshiConfig, *, where: str) -> dict[str, Tensor]:
    """Their file's tensors in the names of their modules: one matrix a step, norms as vectors.

    Raises:
        CheckpointError: a stacked matrix that cannot be cut.
    """
    plain = {}
    for name, tensor in tensors.items():
        stacked = re.fullmatch(r"(.*\.self_attn\.)(in|out)_proj[._]((?:lora_[AB]\.)?weight(?:_scb)?)", name)
        if stacked is None:
            plain[name] = tensor.flatten() if name.endswith(VECTORS) else tensor
            continue
        sets = config.depth.sets if config.depth and name.startswith("depformer.") else 1
        if sets > COPIED and len(tensor) % sets == 0 and _is_half(name, tensor, config):
            tensor = torch.cat([tensor, tensor])
        if len(tensor) % sets:
            raise CheckpointError(f"{where}: {name} has {len(tensor)} rows, which are not {sets} equal steps")
        for i, piece in enumerate(tensor.chunk(sets)):
            plain[f"{stacked[1]}{stacked[2]}_projs.{i}.{stacked[3]}"] = piece
    return plain


def _is_half(name: str, tensor: Tensor, config: MoshiConfig) -> bool:
    """Whether a matrix stacked by step has the steps of Moshi only, of a model that has twice as many."""
    assert config.depth is not None
    c = config.depth
    rows = c.dim // c.heads * (c.heads + 2 * c.key_heads) if "in_proj" in name else c.dim
    return c.sets == 2 * COPIED and len(tensor) == COPIED * rows


def stack_steps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `split_steps`: the tensors as they are published."""
    published: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        step = re.fullmatch(r"(.*\.self_attn\.)(in|out)_projs\.(\d+)\.(weight(?:_scb)?)", name)
        if step is None:
            published[name] = tensor.view(1, 1, -1) if name.endswith(VECTORS) else tensor
        else:
            joint = "_" if step[2] == "in" else "."
            stacks.setdefault(f"{step[1]}{step[2]}_proj{joint}{step[4]}", {})[int(step[3])] = tensor
    for name, pieces in stacks.items():
        published[name] = torch.cat([pieces[i] for i in range(len(pieces))])
    return published


def with_missing_steps(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fills steps 8 to 15 that a file lacks with its steps 0 to 7, as PersonaPlex's own loader does."""
    filled = dict(tensors)
    for name in wanted:
        step = re.search(r"\b(gating|linears|depformer_in|depformer_emb)\.(\d+)\.", name)
        if name in filled or step is None or int(step[2]) < COPIED:
            continue
        source = f"{name[: step.start(2)]}{int(step[2]) - COPIED}{name[step.end(2) :]}"
        if source in filled:
            filled[name] = filled[source]
    return filled


def with_lora(
    tensors: Mapping[str, Tensor], lora: Mapping[str, Tensor], config: MoshiConfig, *, scaling: float, where: str
) -> dict[str, Tensor]:
    """Adds the adapters of a `lora.safetensors`, as moshi-finetune writes it, to their weights: W + scaling * B A.

    Raises:
        CheckpointError: an adapter without its half or its weight, or on a weight that is int8.
    """
    merged, pieces = split_steps(tensors, config, where=where), split_steps(lora, config, where=where)
    names = {re.sub(r"lora_[AB]\.weight$", "", name) for name in pieces}
    wanted = {f"{name}lora_{half}.weight" for name in names for half in "AB"}
    refuse(wanted - set(pieces), set(pieces) - wanted, where)
    refuse({f"{name}weight" for name in names} - set(merged), (), where)
    for name in names:
        a, b, weight = (pieces[f"{name}lora_A.weight"], pieces[f"{name}lora_B.weight"], merged[f"{name}weight"])
        if not weight.is_floating_point() or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != weight.shape:
            raise CheckpointError(
                f"{where}: {name}lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)} do not fit {name}weight "
                f"{tuple(weight.shape)} ({weight.dtype}). It is an adapter of another model, or the weights are int8."
            )
        merged[f"{name}weight"] = (weight.float() + scaling * (b.float() @ a.float())).to(weight.dtype)
    return merged


def load_moshi(path: Path, *, dtype: torch.dtype | None = None, config: MoshiConfig | None = None) -> MoshiModel:
    """A released model from its folder, or from its weight file with the `config.json` beside it.

    Args:
        dtype: of the weights that are not int8; None: as in the file.
        config: instead of the folder's.
    Raises:
        CheckpointError: something is missing, damaged, not supported, or the configuration and the weights disagree.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    raw = read_config(folder)
    config = from_kyutai(raw, where=str(folder / "config.json")) if config is None else config
    file = path if path.is_file() else _weight_file(folder, raw)
    tensors: Mapping[str, Tensor] = Shards(file)
    if raw.get("lora_name"):
        lora = Shards(folder / str(raw["lora_name"]))
        tensors = with_lora(tensors, lora, config, scaling=raw.get("lora_scaling", 2.0), where=str(lora.path))
    model, loaded = meta_model(config), load_tensors(tensors, config, where=str(file))
    shape_like(model, loaded)
    if dtype is not None:
        loaded = {name: tensor.to(dtype) if may_round(name, tensor) else tensor for name, tensor in loaded.items()}
    fill(model, loaded, where=str(file))
    return model.eval()


def may_round(name: str, tensor: Tensor) -> bool:
    """Whether a tensor takes the type that the model is wanted in."""
    return tensor.is_floating_point() and not name.endswith(".scale") and not name.startswith(PRECISE)


def meta_model(config: MoshiConfig) -> MoshiModel:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return MoshiModel(config)


def theirs_wanted(config: MoshiConfig) -> dict[str, Tensor]:
    """The names and shapes (on the meta device) that the `moshi` package's modules have for this configuration."""
    return to_theirs(moshi_table(config), meta_model(config).state_dict())


def load_tensors(tensors: Mapping[str, Tensor], config: MoshiConfig, *, where: str) -> dict[str, Tensor]:
    wanted = theirs_wanted(config)
    theirs = split_steps(tensors, config, where=where)
    if config.depth_steps == 2 * COPIED:
        theirs = with_missing_steps(theirs, wanted | {f"{name}_scb": tensor for name, tensor in wanted.items()})
    packed = {name for name in theirs if f"{name}_scb" in theirs}
    refuse(set(wanted) - set(theirs), set(theirs) - set(wanted) - {f"{name}_scb" for name in packed}, where)
    for name, tensor in wanted.items():
        if theirs[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tuple(theirs[name].shape)}, the configuration says {tuple(tensor.shape)}"
            )
    ours = to_ours(_packed_table(moshi_table(config), packed), theirs, where=where)
    return {name: tensor.float() / 127 if name.endswith(".scale") else tensor for name, tensor in ours.items()}


def _packed_table(table: Table, packed: set[str]) -> Table:
    """The table where some of their weights are int8, with a scale beside each."""
    out = []
    for entry in table:
        if entry.theirs[0] in packed:
            scales = tuple(f"{name}_scb" for name in entry.theirs)
            out.append(Entry(f"{entry.ours}.int8", entry.theirs, entry.rows))
            out.append(Entry(f"{entry.ours}.scale", scales, entry.rows))
        else:
            out.append(entry)
    return out


def save_moshi(model: MoshiModel, folder: Path, *, name: str = WEIGHTS[0]) -> None:
    """Writes weights and `config.json` as the `moshi` package reads them; int8 layers as its q8 files.

    Raises:
        CheckpointError: the model has layers that the layout cannot hold: int4, adapters not merged, a head for what
            is heard.
    """
    if model.hear is not None:
        raise CheckpointError("save_moshi: kyutai's layout has no head that writes down what is heard; use save_model")
    ours = model.state_dict()
    packed = {key.removesuffix(".int8") for key in ours if key.endswith(".int8")}
    table = moshi_table(model.config)
    theirs_packed = {their for entry in table if entry.ours in packed for their in entry.theirs}
    theirs = to_theirs(_packed_table(table, theirs_packed), ours, where="save_moshi")
    theirs = {key: tensor * 127 if key.endswith("_scb") else tensor for key, tensor in theirs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in stack_steps(theirs).items()}, folder / name)
    text = json.dumps({**to_kyutai(model.config), "moshi_name": name}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def quantize_moshi(model: MoshiModel, *, bits: int = 8, activations: str | None = None) -> None:
    """Makes the linear layers int8 or int4, in place; embeddings and norms stay, as in the released q8 files.

    Args:
        bits: 8 or 4.
        activations: how 8 bits multiply (nn.quant); None: large matrices by integers, at 16 bits, small ones in bf16.
    """
    linears = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and not name.startswith(PRECISE)
    }
    if bits != 8:
        quantize(model, list(linears), bits=bits)
        return
    large = [name for name, layer in linears.items() if layer.weight.numel() >= LARGE]
    for names, default in ((large, "int16"), ([name for name in linears if name not in set(large)], "bf16")):
        if names:
            quantize(model, names, activations=activations or default)


def _weight_file(folder: Path, raw: Mapping[str, object]) -> Path:
    names = [raw["moshi_name"]] if isinstance(raw.get("moshi_name"), str) else list(WEIGHTS)
    found = [folder / str(name) for name in names if (folder / str(name)).is_file()]
    if not found:
        raise CheckpointError(f"{folder}: {' or '.join(map(str, names))} is missing. Fetch it again.")
    return found[0]
