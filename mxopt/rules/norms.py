"""The norm that clipping needs: of a gradient, from which nothing follows for its tensor alone."""

from __future__ import annotations

from mxopt.rules.rule import Rule, stage


@stage(norms=1)
def _gradient(grad):
    return grad


# Of each tensor; that of all of them together follows on the host. https://arxiv.org/abs/1211.5063
global_norm: Rule = Rule("global_norm", (), (_gradient,), lazy=False)
