"""Runs all stages of a rule in one call: a pass for each, and in between the scalars that follow
from each tensor's norms.

A norm is the root of the sum of its pieces' sums of squares, rounded once, as `rules.common.norm`
has it. So sums must be exact: each double is a whole multiple of 2**-1074, and these are added in
digits of 32 bits, each in a word of its own that has room for carries.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial

from mxopt.assembler import Lines, compile_assembly
from mxopt.engine import jit, team
from mxopt.engine.assembly import Assembly
from mxopt.engine.kernel import BATCHES, HYPERS, KERNEL, N_BATCHES, PIECE_WORDS, PIECES, SUMS, Kernel
from mxopt.engine.trace import trace
from mxopt.rules.rule import Rule, parameters

DIGITS = 70  # two that stay zero, 66 for a sum's bits, and two for carries


@cache
def compiled(kernels: tuple[Kernel, ...]) -> Callable[[int], object]:
    """A function of a job's address that runs kernels of one rule one after the other, without the
    GIL. After each stage it writes the scalars that follow to the tensors' hyper-parameters, which
    are in the tensors' order."""
    address = compile_assembly(assemble(kernels[0].rule, [(jit.compiled(k), k.stage) for k in kernels]), "passes")
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def assemble(rule: Rule, kernels: Sequence[tuple[int, int | None]]) -> str:
    """The assembly of that function for kernels at these addresses, of these stages."""
    asm = Assembly("float64")
    team.write_caller(asm)
    write_exact_sum(asm)
    for step in range(len(rule.derivations)):
        _derive(asm, rule, step)
    with asm.function("void @passes(ptr %job)"):
        kernel = asm.at("i64", "%job", KERNEL)
        asm.put("call void @begin(ptr %job)")
        for address, stage in kernels:
            asm.put(f"store i64 {address}, ptr {kernel}")
            asm.put("call void @pass(ptr %job)")
            if stage is not None and stage < len(rule.derivations):
                asm.put(f"call void @derive{stage}(ptr %job)")
        asm.put("call void @end(ptr %job)")
        team.leave(asm)
        asm.put("ret void")
    return asm.module()


def _derive(asm: Assembly, rule: Rule, step: int) -> None:
    derivation, norms = rule.derivations[step], rule.stages[step].norms
    with asm.function(f"internal void @derive{step}(ptr %job)"):
        pieces, batches, hypers, sums = (asm.pointer("%job", word) for word in (PIECES, BATCHES, HYPERS, SUMS))
        count = asm.word(batches, asm.word("%job", N_BATCHES))
        with asm.loop("tensor", ("i64", "0")) as (tensors, first):
            tensors.until(asm.let(f"icmp uge i64 {first}, {count}"))
            tensor = asm.word(pieces, asm.let(f"mul i64 {first}, {PIECE_WORDS}"))
            with asm.loop("piece", ("i64", first)) as (its, end):
                its.until(asm.let(f"icmp uge i64 {end}, {count}"))
                other = asm.word(pieces, asm.let(f"mul i64 {end}, {PIECE_WORDS}"))
                its.until(asm.let(f"icmp ne i64 {other}, {tensor}"))
                its.again(asm.let(f"add i64 {end}, 1"))
            number = asm.let(f"sub i64 {end}, {first}")
            start = asm.at("double", sums, asm.let(f"mul i64 {first}, {norms}"))
            values = []
            for k in range(norms):
                total = asm.let(f"call double @exact_sum(ptr {asm.at('double', start, k)}, i64 {number}, i64 {norms})")
                values.append(asm.call("double", "llvm.sqrt.f64", f"double {total}"))
            own = asm.at("double", hypers, asm.let(f"mul i64 {tensor}, {len(rule.hypers)}"))
            names = parameters(derivation.function)
            values += [
                asm.let(f"load double, ptr {asm.at('double', own, rule.hypers.index(n))}") for n in names[norms:]
            ]
            results = asm.run_one(trace(derivation.function), values)
            for name, value in zip(derivation.names, results, strict=True):
                asm.put(f"store double {value}, ptr {asm.at('double', own, rule.hypers.index(name))}")
            tensors.again(end)
        asm.put("ret void")


def write_exact_sum(asm: Lines) -> None:
    """Writes `exact_sum`: the sum, rounded once, of `count` doubles of 0 or more, every `step`-th
    from `numbers` on."""
    with asm.function("internal double @exact_sum(ptr %numbers, i64 %count, i64 %step)"):
        digits = asm.let(f"alloca i64, i64 {DIGITS}")
        with asm.loop("clear", ("i64", "0")) as (loop, k):
            loop.until(asm.let(f"icmp eq i64 {k}, {DIGITS}"))
            asm.put(f"store i64 0, ptr {asm.at('i64', digits, k)}")
            loop.again(asm.let(f"add i64 {k}, 1"))
        with asm.loop("number", ("i64", "0"), ("double", "0.0")) as (loop, k, endless):
            loop.until(asm.let(f"icmp eq i64 {k}, %count"))
            at = asm.at("double", "%numbers", asm.let(f"mul i64 {k}, %step"))
            x, bits = asm.let(f"load double, ptr {at}"), asm.let(f"load i64, ptr {at}")
            exponent = asm.let(f"and i64 {asm.let(f'lshr i64 {bits}, 52')}, 2047")
            finite = asm.let(f"icmp ne i64 {exponent}, 2047")
            asm.when(finite, partial(_add, asm, digits, bits, exponent))
            more = asm.let(f"fadd double {endless}, {x}")
            loop.again(asm.let(f"add i64 {k}, 1"), asm.let(f"select i1 {finite}, double {endless}, double {more}"))
        with asm.loop("carry", ("i64", "2"), ("i64", "0"), ("i64", "0")) as (loop, k, over, top):
            loop.until(asm.let(f"icmp eq i64 {k}, {DIGITS}"))
            at = asm.at("i64", digits, k)
            total = asm.let(f"add i64 {asm.let(f'load i64, ptr {at}')}, {over}")
            digit = asm.let(f"and i64 {total}, 4294967295")
            asm.put(f"store i64 {digit}, ptr {at}")
            some = asm.let(f"icmp ne i64 {digit}, 0")
            loop.again(
                asm.let(f"add i64 {k}, 1"),
                asm.let(f"lshr i64 {total}, 32"),
                asm.let(f"select i1 {some}, i64 {k}, i64 {top}"),
            )
        some, finite = asm.let(f"icmp ne i64 {top}, 0"), asm.let(f"fcmp oeq double {endless}, 0.0")

        def finite_sum() -> list[str]:
            return asm.when(some, lambda: [_rounded(asm, digits, top)], "double", ["0.0"])

        (found,) = asm.when(finite, finite_sum, "double", [endless])
        asm.put(f"ret double {found}")


def _add(asm: Lines, digits: str, bits: str, exponent: str) -> None:
    """Adds a number to the digits."""
    normal = asm.let(f"icmp ne i64 {exponent}, 0")
    hidden = asm.let(f"select i1 {normal}, i64 {1 << 52}, i64 0")
    mantissa = asm.let(f"or i64 {asm.let(f'and i64 {bits}, {(1 << 52) - 1}')}, {hidden}")
    shift = asm.let(f"sub i64 {asm.larger(exponent, '1')}, 1")
    digit, within = asm.let(f"lshr i64 {shift}, 5"), asm.let(f"and i64 {shift}, 31")
    low = asm.let(f"shl i64 {mantissa}, {within}")
    high = asm.call("i64", "llvm.fshl.i64", "i64 0", f"i64 {mantissa}", f"i64 {within}")
    parts = asm.let(f"and i64 {low}, 4294967295"), asm.let(f"lshr i64 {low}, 32"), high
    for place, part in enumerate(parts, 2):
        at = asm.at("i64", asm.at("i64", digits, digit), place)
        before = asm.let(f"load i64, ptr {at}")
        asm.put(f"store i64 {asm.let(f'add i64 {before}, {part}')}, ptr {at}")


def _rounded(asm: Lines, digits: str, top: str) -> str:
    """The double nearest to a sum whose highest nonzero digit is `top`."""
    with asm.loop("below", ("i64", "2"), ("i64", "0")) as (loop, k, sticky):
        loop.until(asm.let(f"icmp uge i64 {asm.let(f'add i64 {k}, 2')}, {top}"))
        loop.again(asm.let(f"add i64 {k}, 1"), asm.let(f"or i64 {sticky}, {asm.word(digits, k)}"))
    first, second, third = (asm.word(asm.at("i64", digits, top), -k) for k in range(3))
    two, three = asm.let(f"or i64 {asm.let(f'shl i64 {first}, 32')}, {second}"), asm.let(f"shl i64 {third}, 32")
    zeros = asm.call("i64", "llvm.ctlz.i64", f"i64 {two}", "i1 false")
    upper = asm.call("i64", "llvm.fshl.i64", f"i64 {two}", f"i64 {three}", f"i64 {zeros}")
    rest = asm.let(f"or i64 {asm.let(f'shl i64 {three}, {zeros}')}, {sticky}")
    last = asm.let(f"zext i1 {asm.let(f'icmp ne i64 {rest}, 0')} to i64")
    value = asm.let(f"uitofp i64 {asm.let(f'or i64 {upper}, {last}')} to double")
    place = asm.let(f"shl i64 {asm.let(f'sub i64 {top}, 2')}, 5")
    exponent = asm.let(f"sub i64 {asm.let(f'sub i64 {place}, {zeros}')}, {1074 + 32}")
    half = asm.let(f"ashr i64 {exponent}, 1")
    for part in (half, asm.let(f"sub i64 {exponent}, {half}")):  # in two steps, whose factors are doubles
        bits = asm.let(f"shl i64 {asm.let(f'add i64 {part}, 1023')}, 52")
        value = asm.let(f"fmul double {value}, {asm.let(f'bitcast i64 {bits} to double')}")
    return value
