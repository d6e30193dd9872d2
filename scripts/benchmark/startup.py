"""Import and first update, each time in a fresh process, whose clock starts at its first statement.

Warm: bytecode and whatever caches a system keeps are there. Cold: bytecode and caches are looked
for in an empty folder; the files themselves may be in memory. The limit is NumPy alone.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping

from benchmark.driver import Result, Times, spread
from benchmark.machine import Watch
from benchmark.protocol import environment

NUMPY = "import numpy as np; w, g = np.ones(16, np.float32), np.ones(16, np.float32)"
SNIPPETS = {  # import; what leads to an update of 16 floats by adam
    "mxopt": ("import mxopt", f"{NUMPY}; mxopt.get_updater(mxopt.create('adam'))(0, g, w)"),
    "limit": ("import numpy", f"{NUMPY}; w -= g"),
    "pytorch": (
        "import torch",
        "w = torch.ones(16); w.grad = torch.ones(16); torch.optim.Adam([w], fused=True).step()",
    ),
    "mxnet": (
        "import numpy; numpy.bool = bool; import mxnet as mx",
        "mx.optimizer.get_updater(mx.optimizer.create('adam'))(0, mx.nd.ones(16), mx.nd.ones(16)); mx.nd.waitall()",
    ),
    "optax": (
        "import jax, optax",
        "import jax.numpy as jnp; w = jnp.ones(16); t = optax.adam(1e-3); s = t.init(w)\n"
        "f = jax.jit(lambda w, s, g: t.update(g, s, w), donate_argnums=1)\n"
        "optax.apply_updates(w, f(w, s, jnp.ones(16))[0]).block_until_ready()",
    ),
    "mindspore": (
        "import mindspore as ms",
        "from mindspore import nn; w = ms.Parameter(ms.ops.ones(16, ms.float32), name='w')\n"
        "ms.set_context(mode=ms.PYNATIVE_MODE, device_target='CPU')\n"
        "nn.Adam([w])((ms.ops.ones(16, ms.float32),)); w.asnumpy()",
    ),
}
PROGRAM = """
from time import perf_counter; start = perf_counter()
{imports}
imported = perf_counter() - start
{update}
updated = perf_counter() - start
import json; print(json.dumps([imported, updated]))
"""
ROWS = ("import", "first update")
TEMPERATURES = ("warm", "cold")
PATIENCE = 120  # seconds


def measure(system: str, python: str, threads: int, cores: list[int], cold: bool) -> list[float]:
    """Seconds to the end of the import, and to the end of the first update."""
    imports, update = SNIPPETS[system]
    with tempfile.TemporaryDirectory() as empty:
        chosen = environment(system, threads, cores)
        if cold:
            chosen |= {"PYTHONPYCACHEPREFIX": empty, "XDG_CACHE_HOME": empty, "NUMBA_CACHE_DIR": empty}
        program = PROGRAM.format(imports=imports, update=update)
        result = subprocess.run(
            [python, "-c", program], env=chosen, cwd=empty, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    times: list[float] = json.loads(result.stdout.splitlines()[-1])
    return times


def run(
    pythons: Mapping[str, str], threads: int, cores: list[int], rounds: int, quick: bool, tick: Callable[[str], None]
) -> list[Result]:
    """The rows of the kind `startup`. A quick run starts only mxopt cold."""
    rows = []
    for temperature in TEMPERATURES:
        pair = [Result("startup", f"{what}, {temperature}") for what in ROWS]
        names = [n for n in pythons if not quick or temperature == "warm" or n in ("mxopt", "limit")]
        watch, busy = Watch([]), 0.0
        for number in range(-1, rounds):  # the first fills the caches
            if number < 0 and (temperature == "cold" or quick):
                continue
            for name in list(names):
                tick(f"{name}, {temperature}")
                try:
                    times = measure(name, pythons[name], threads, cores, temperature == "cold")
                except (subprocess.SubprocessError, ValueError, IndexError) as error:
                    for row in pair:
                        row.failures[name] = f"{type(error).__name__}: {error}"
                    names.remove(name)
                    continue
                busy += times[1]
                for row, seconds in zip(pair, times, strict=True):
                    if number >= 0:
                        row.systems.setdefault(name, Times({"process": []})).rounds["process"].append(seconds)
        disturbed = watch.remarks(0, busy)
        for row in pair:
            row.remarks += disturbed
            limit = row.systems.get("limit")
            if limit is not None and spread(limit.taken) > 0.2:
                row.remarks.append(f"the limit wandered by {spread(limit.taken):.0%}")
            rows.append(row)
    return rows
