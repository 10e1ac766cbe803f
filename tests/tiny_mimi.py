"""A small Mimi, its speech, and the reference implementations at the same shape with weights that tell codes apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import duologue
from duologue.audio.io import load
from duologue.codecs.mimi import MimiConfig
from duologue.codecs.rvq import QuantizerConfig
from duologue.codecs.seanet import SeanetConfig
from duologue.nn.window_transformer import WindowConfig

CONFIG = MimiConfig(
    num_codebooks=5,
    seanet=SeanetConfig(dim=32, filters=4),
    transformer=WindowConfig(
        dim=32,
        layers=2,
        heads=4,
        ffn_dim=48,
        ffn="gelu",
        norm="layer",
        norm_eps=1e-5,
        layer_scale=0.01,
        context=14,
        chunk=2,
    ),
    quantizer=QuantizerConfig(dim=32, code_dim=16, codebook_size=64, codebooks=7),
)
FRAME = CONFIG.frame_samples


def speech(frames: int, *, rows: int = 1) -> Tensor:
    """Whole frames of a spoken question, [B, N]; each row begins elsewhere."""
    samples = load(Path(duologue.__file__).parent / "assets/mini/hello.wav", CONFIG.sample_rate)
    cut = [samples[row * FRAME : (row + frames) * FRAME] for row in range(rows)]
    return torch.from_numpy(np.stack(cut))


def spread(module: nn.Module) -> None:
    """Random weights under which signals keep their size and every part of the network is heard."""
    for name, parameter in module.named_parameters():
        if "scale" in name:
            parameter.data.uniform_(0.2, 0.5)
        elif parameter.dim() == 1:
            parameter.data.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
        elif "convtr" in name or "upsample" in name:
            parameter.data.normal_(std=(1 / parameter.shape[0]) ** 0.5 if parameter.shape[1] > 1 else 1.0)
        else:
            parameter.data.normal_(std=1.3 * parameter[0].numel() ** -0.5)


def spread_codebooks(projection: nn.Conv1d, x_DT: Tensor, books: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Codebooks (sums and usage) of the size that takes most from what they quantise.

    The projection loses what all steps have in common: where that is large, which code is nearest is decided by
    rounding.
    """
    common = torch.nn.functional.normalize(x_DT.mean(1), dim=0)
    projection.weight -= (projection.weight[..., 0] @ common)[:, None, None] * common[:, None]
    rest_ND = projection(x_DT[None])[0].T
    for total, usage in books:
        size, dim = total.shape
        usage.uniform_(0.5, 2)
        usage[3] = 0  # divided by the floor
        vectors = torch.randn(size, dim) * rest_ND.std(0) * math.sqrt(2 * math.log(size) / dim)
        total.copy_(vectors * usage[:, None])
        vectors[3] = 0
        rest_ND = rest_ND - vectors[torch.cdist(rest_ND, vectors).argmin(1)]


def soften(last: nn.Module, audio: Tensor) -> None:
    """Scales the last convolution so that the audio stays in [-1, 1]."""
    for parameter in last.parameters():
        parameter.data.div_(float(audio.abs().max()))


def moshi_config(config: MimiConfig) -> dict[str, object]:
    """The same shape in the words of the `moshi` package."""
    s, t, q = config.seanet, config.transformer, config.quantizer
    return {
        "sample_rate": config.sample_rate,
        "channels": 1,
        "frame_rate": config.frame_rate,
        "seanet": {
            "channels": 1,
            "dimension": s.dim,
            "causal": True,
            "n_filters": s.filters,
            "n_residual_layers": s.residual_layers,
            "activation": "ELU",
            "compress": s.compress,
            "dilation_base": s.dilation_base,
            "kernel_size": s.kernel,
            "residual_kernel_size": s.residual_kernel,
            "last_kernel_size": s.last_kernel,
            "norm": "none",
            "pad_mode": "constant",
            "ratios": list(s.ratios),
            "true_skip": True,
        },
        "quantizer": {
            "dimension": q.code_dim,
            "n_q": q.codebooks,
            "n_q_semantic": q.semantic,
            "bins": q.codebook_size,
            "input_dimension": q.dim,
            "output_dimension": q.dim,
        },
        "transformer": {
            "d_model": t.dim,
            "num_heads": t.heads,
            "num_layers": t.layers,
            "causal": True,
            "layer_scale": t.layer_scale,
            "context": t.context,
            "conv_layout": True,
            "max_period": t.rope_theta,
            "gating": "none",
            "norm": "layer_norm",
            "positional_embedding": "rope",
            "dim_feedforward": t.ffn_dim,
            "input_dimension": t.dim,
            "output_dimensions": [t.dim],
        },
    }


def moshi_mimi(config: MimiConfig) -> nn.Module:
    """The `moshi` package's codec of this shape with random weights."""
    from moshi.models.loaders import get_mimi

    model = get_mimi(None, moshi_config(config), num_codebooks=config.num_codebooks)
    with torch.no_grad():
        spread(model)
        latents = model.encode_to_latent(speech(24)[:, None], quantize=False)
        for part in (model.quantizer.rvq_first, model.quantizer.rvq_rest):
            books = [layer._codebook for layer in part.vq.layers]
            spread_codebooks(part.input_proj, latents[0], ((b.embedding_sum, b.cluster_usage) for b in books))
    for module in model.modules():
        if hasattr(module, "_embedding"):
            module._embedding = None  # what the first look at the codebook worked out
    with torch.no_grad():
        soften(model.decoder.model[-1], model.decode(model.encode(speech(8)[:, None])))
    return model


def moshi_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Its weights under the names of the released file."""
    names = {"in_projs.0.weight": "in_proj_weight", "out_projs.0.weight": "out_proj.weight"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        tensors[name] = tensor.clone()
    return tensors


def transformers_mimi(config: MimiConfig) -> nn.Module:
    """transformers' codec of this shape with random weights."""
    from transformers import MimiConfig as TheirConfig
    from transformers import MimiModel

    s, t, q = config.seanet, config.transformer, config.quantizer
    theirs = TheirConfig(
        sampling_rate=config.sample_rate,
        frame_rate=config.frame_rate,
        hidden_size=s.dim,
        num_filters=s.filters,
        num_residual_layers=s.residual_layers,
        upsampling_ratios=list(s.ratios),
        kernel_size=s.kernel,
        last_kernel_size=s.last_kernel,
        residual_kernel_size=s.residual_kernel,
        dilation_growth_rate=s.dilation_base,
        compress=s.compress,
        codebook_size=q.codebook_size,
        codebook_dim=q.code_dim,
        num_quantizers=q.codebooks,
        vector_quantization_hidden_dimension=q.code_dim,
        num_semantic_quantizers=q.semantic,
        upsample_groups=s.dim,
        num_hidden_layers=t.layers,
        intermediate_size=t.ffn_dim,
        num_attention_heads=t.heads,
        num_key_value_heads=t.heads,
        sliding_window=t.context,
    )
    model = MimiModel(theirs).eval()
    with torch.no_grad():
        spread(model)
        latents, quantizer = model.encoder(speech(24)[:, None]).latents, model.quantizer
        parts = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        for part in parts:
            books = [layer.codebook for layer in part.layers]
            spread_codebooks(part.input_proj, latents[0], ((b.embed_sum, b.cluster_usage) for b in books))
        soften(model.decoder.decoder_seanet.layers[-1], model.decode(model.encode(speech(8)[:, None]).audio_codes)[0])
    return model
