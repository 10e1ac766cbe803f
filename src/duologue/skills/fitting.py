"""Weights of the router's score, fitted on requests: a logistic regression held near the weights it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from duologue.skills.base import Context
from duologue.skills.evaluation import Request
from duologue.skills.router import FEATURES, Router, RouterConfig
from duologue.skills.tools import Tool
from duologue.skills.words import request as words_of


def fit(
    router: Router,
    requests: Sequence[Request],
    *,
    tools: Sequence[Tool],
    context: Context,
    hold: float = 0.3,
    steps: int = 4_000,
) -> RouterConfig:
    """New weights for a router, its embedding included; a weight does not fall below zero.

    Args:
        hold: how strongly the weights stay near those of the router.
    """
    functions = [tool for tool in tools if tool.skill is None]
    rows, wanted = [], []
    for one in requests:
        for tool, values, extraction in router.features(words_of(one.text), one.text, functions, context):
            if not extraction.missing:
                rows.append([1.0, *values])
                wanted.append(float(tool.name == one.tool))
    x, y = np.array(rows), np.array(wanted)
    start = np.array([router.config.bias, *(getattr(router.config, name) for name in FEATURES)])
    weights, floor = start.copy(), np.array([-np.inf, *(0.0 for _ in FEATURES)])
    balance = np.where(y > 0, 0.5 / y.sum(), 0.5 / (len(y) - y.sum())) * len(y) ** 0.5
    for _ in range(steps):
        likely = 1 / (1 + np.exp(-x @ weights))
        slope = x.T @ (balance * (likely - y)) + hold * (weights - start)
        weights = np.maximum(weights - 0.02 * slope, floor)
    return replace(router.config, bias=float(weights[0]), **dict(zip(FEATURES, map(float, weights[1:]), strict=True)))
