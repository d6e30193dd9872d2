"""optax under `jax.jit`, with parameters and states donated: as a tree, or (lists) flattened into
one vector."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax

from benchmark import inputs
from benchmark.cases import Case
from benchmark.timing import Job

MANY = 500  # tensors
MAKE: dict[str, Callable[[], Any]] = {
    "sgd": partial(optax.sgd, 0.01),
    "sgd-momentum": partial(optax.sgd, 0.01, momentum=0.9),
    "nag": partial(optax.sgd, 0.01),
    "nag-momentum": partial(optax.sgd, 0.01, momentum=0.9, nesterov=True),
    "signsgd": partial(optax.sign_sgd, 0.01),
    "signum": partial(optax.signum, 0.01),
    "lion": partial(optax.lion, 0.0001),
    "sgld": partial(optax.noisy_sgd, 0.01, seed=inputs.SEED),
    "adam": partial(optax.adam, 0.001),
    "adamw": partial(optax.adamw, 0.001),
    "adabelief": partial(optax.adabelief, 0.001),
    "adamax": partial(optax.adamax, 0.002),
    "nadam": partial(optax.nadam, 0.001),
    "adagrad": partial(optax.adagrad, 0.01),
    "adadelta": partial(optax.adadelta, 1.0, rho=0.9),
    "rmsprop": partial(optax.rmsprop, 0.001),
    "rmsprop-centered": partial(optax.rmsprop, 0.001, centered=True, momentum=0.9),
    "lars": partial(optax.lars, 0.01),
    "lamb": partial(optax.lamb, 0.001),
}


def version() -> str:
    return f"{optax.__version__}, jax {jax.__version__}"


def ways(case: Case) -> list[str]:
    if case.optimizer not in MAKE or case.row_count or case.master:
        return []
    if len(case.shapes) == 1 or case.row.layerwise:  # whose norms are each tensor's own
        return ["tree"]
    # A tree of a thousand takes half a minute to compile, and then seven times as long as
    # flattened.
    return ["flattened"] if len(case.shapes) >= MANY else ["tree", "flattened"]


def build(case: Case, way: str) -> Job:
    transform = MAKE[case.optimizer]()
    if way == "flattened":
        transform = optax.flatten(transform)
    weights, grads = (jax.device_put([a.copy() for a in arrays]) for arrays in inputs.dense(case))
    state = transform.init(weights)
    now = grads

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(weights: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, weights)
        return optax.apply_updates(weights, updates), state

    def step() -> None:
        nonlocal weights, state
        weights, state = update(weights, state, now)

    def renew() -> None:
        nonlocal now
        now = jax.block_until_ready([grad.copy() for grad in grads])

    return Job(step, renew if case.fresh else None, lambda: jax.block_until_ready(weights))
