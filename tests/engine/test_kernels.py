"""The compiled kernels: vector instructions, no contraction, the same bits on an older
processor."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import llvmlite.binding as llvm
import numpy as np
import pytest

import mxopt
import mxopt.rules
from mxopt import assembler
from mxopt.engine import Plan, Tensor, cuda_source, kernel
from mxopt.engine.jit import assemble
from mxopt.engine.kernel import PIECE, REDUCES, Kernel
from mxopt.engine.steps import run
from mxopt.engine.trace import Tape
from mxopt.errors import CompilationError, RuleError
from mxopt.rules import adam, adaptive, sgd
from mxopt.rules.rule import Rule, by_element, rule

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks at x86 instructions")


def rules() -> list[Rule]:
    modules = [importlib.import_module(f"mxopt.rules.{m.name}") for m in pkgutil.iter_modules(mxopt.rules.__path__)]
    found = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Rule)}
    return [*found.values(), *(by_element(rule) for rule in found.values() if rule.reduction)]


def instructions(kernel: Kernel) -> str:
    """The kernel in this machine's assembly, as `assembler` compiles it."""
    machine, _ = assembler.target()
    return str(machine.emit_assembly(llvm.parse_assembly(assemble(kernel))))


@x86
@pytest.mark.parametrize("some", rules(), ids=lambda r: r.name)
def test_kernels_are_vectors_without_contraction(some: Rule) -> None:
    wide = "zmm" if llvm.get_host_cpu_features().get("avx512f") else "ymm"
    for master in (False, True):
        dtypes = ("float32",) * (2 + len(some.states))
        dtypes = ("bfloat16", "bfloat16", *dtypes[2:], "float32") if master else dtypes
        kernels = [Kernel(some, stage, dtypes, some.by_row is not None) for stage in range(len(some.stages))]
        kernels += [Kernel(some, None, dtypes, reduces=what) for what in REDUCES if some.by_matrix]
        kernels += [Kernel(some, None, dtypes, some.by_row is not None)] * (some.by_matrix is None)
        for each in kernels:
            code, name = instructions(each), each.name
            assert re.search(rf"v(add|sub|mul|div|and|max|cmp\w*)p[sd]\s.*%{wide}", code), name
            # But for sums of squares of float32, which are exact in double.
            sums = some.reduction is not None or any(some.stages[s].norms for s in each.stages)
            assert set(re.findall(r"vfn?m(?:add|sub)\d+(\w\w)", code)) <= ({"pd"} if sums else set()), name
            assert "rsqrt14" not in code
            assert "rcp14" not in code
    for stage in range(len(some.stages)) if some.by_matrix is None else ():
        each = Kernel(some, stage, ("float64",) * (2 + len(some.states)), some.by_row is not None)
        assert not re.search(r"vfn?m(add|sub)", instructions(each)), each.name


@x86
@pytest.mark.parametrize(("dtype", "lines"), [("float16", 1), ("float32", 1), ("float64", 2)])
def test_row_wise_kernels_fetch_the_rows_to_come(dtype: str, lines: int) -> None:
    for some, arrays, others in ((sgd.sgd, 1, 0), (adam.adam, 3, 0), (adaptive.group_adagrad, 1, 1)):
        code = instructions(Kernel(some, 0, (dtype,) * (2 + len(some.states)), rowwise=True))
        steps = 3 if some.by_row else 1  # of long rows; of short ones, and of the last of these
        # In the loop, and for what is left.
        assert len(re.findall("prefetch", code)) == steps * (2 * arrays * lines + others)
        if some.by_row is None:
            assert "prefetch" not in instructions(Kernel(some, 0, (dtype,) * (2 + len(some.states))))


def test_what_is_only_read_is_fetched_to_be_read() -> None:
    """Else a processor may write gradients back that nobody has changed."""
    code = assemble(Kernel(adam.adam, None, ("float32", "float32", "bfloat16", "bfloat16"), stochastic=True))
    loop = re.findall(r"prefetch\.p0\(ptr \S+, i32 ([01]),", code)[:4]
    assert loop == ["1", "0", "1", "1"]  # weight, gradient, both moments


@pytest.mark.parametrize("printer", [kernel, cuda_source])
def test_an_operation_that_no_printer_knows_is_refused(printer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a tape's: no rule gets that far."""
    monkeypatch.setattr(printer, "trace", lambda function: Tape(("weight",), [("exp", (0,))], (1,)))
    write = assemble if printer is kernel else cuda_source.definition
    with pytest.raises(RuleError, match=r"np\.exp"):
        write(Kernel(sgd.sgd, 0, ("float32", "float32")))


OLDER = """
import sys; sys.path[:0] = {path!r}
import llvmlite.binding as llvm
class Features(dict):
    def flatten(self): return ""
llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: "x86-64-v3", Features
import numpy as np, warnings
from bitwise import Run, array, assert_runs_agree
from table import ROWS
warnings.simplefilter("ignore")
for row in ROWS:
    for dtype in ("float32", "float16", "bfloat16"):
        rng = np.random.default_rng(0)
        start = [array(rng, (5, 7), dtype), array(rng, (17000,), dtype)]
        runs = [Run(row.make(), [w.copy() for w in start], engine) for engine in ("numpy", "llvm")]
        assert_runs_agree(runs, lambda step: [array(rng, w.shape, dtype, special=True) for w in start], steps=2)
print("agree")
"""


@x86
def test_a_processor_without_512_bits_gives_the_same_bits() -> None:
    path = [str(Path(__file__).parent.parent), str(Path(mxopt.__file__).parent.parent)]
    command = [sys.executable, "-c", OLDER.format(path=path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "agree\n"


def test_two_rules_of_one_name_are_two_kernels() -> None:
    def make(factor: float) -> Rule:
        @rule()
        def twin(weight: np.ndarray, grad: np.ndarray, lr: float) -> np.ndarray:
            return weight - factor * lr * grad

        return twin

    for factor in (1.0, 3.0):
        weight = np.ones(4, np.float32)
        plan = Plan("llvm", make(factor), [Tensor("w", weight, np.ones(4, np.float32))], lazy=False)
        run([(None, plan)], [(0.25, 0.0, 1.0, np.inf)], [0])
        assert weight.tolist() == [1 - factor / 4] * 4


def test_small_tensors_of_a_layerwise_rule_take_one_kernel_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a derivation was run outside the kernel, or there was more than one call of it")

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(n).astype(np.float32) for n in (5, 300, PIECE)]
    grads = [rng.standard_normal(len(w)).astype(np.float32) for w in weights]
    for name in ("lars", "lamb", "lans"):
        updater = mxopt.optimizer.get_updater(mxopt.create(name))
        updater([0, 1, 2], grads, weights)
        (prepared,) = updater.optimizer._lists._known.values()  # type: ignore[attr-defined]
        ((batch, plan),) = prepared.calls
        assert batch is None
        ((_, part),) = plan.parts
        monkeypatch.setattr(part, "launch", refuse)
        monkeypatch.setattr(Rule, "derive", refuse)
        updater([0, 1, 2], grads, weights)
        assert part.direct
        assert prepared.plans == {None: plan}


def test_tensors_with_a_state_a_row_share_jobs() -> None:
    """One for those of one element a row, which go side by side in a vector, one for the rest."""
    shapes = [(256,)] * 50 + [(7, 1)] * 50 + [(3, 40), (20, 2, 2), (0, 5), (5, 0)] * 50
    weights = [np.ones(shape, np.float32) for shape in shapes]
    states = [(np.zeros(adaptive.group_adagrad.state_shape("history", w.shape), np.float32),) for w in weights]
    tensors = [Tensor("w", w, np.ones_like(w), s) for w, s in zip(weights, states, strict=True)]
    plan = Plan("llvm", adaptive.group_adagrad, tensors, lazy=False)
    assert sorted(len(positions) for positions, _ in plan.parts) == [100, 200]
    for _, part in plan.parts:
        assert not any(getattr(part, "about", np.zeros((1, kernel.ROW_WORDS)))[:, kernel.ROWS_AHEAD])


def test_a_module_that_llvm_refuses_is_an_error_with_words() -> None:
    """Code generation would end the process. One the parser refuses, and one that is only found by
    a closer look."""
    for module in ("define i32 @f() { ret }", "define i32 @f() { %x = add i32 %x, 1 ret i32 %x }"):
        with pytest.raises(CompilationError, match=r"(?s)llvmlite [\d.]+ doesn't accept f: .*0\.48") as caught:
            assembler.compile_assembly(module, "f")
        assert isinstance(caught.value, RuntimeError)
