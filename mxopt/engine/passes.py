"""What makes a rule of several stages one call: a pass for each, and in between the scalars that
follow from each tensor's norms.

A norm is the root of the sum of its pieces' sums of squares, rounded once, as `rules.common.norm`
has it. So sums are exact here: a double that isn't negative is a whole number of 2**-1074, and such
numbers are added up as digits of 32 bits, each in a word of its own that has room for carries.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

from mxopt.assembler import compile_assembly
from mxopt.engine import jit, team
from mxopt.engine.assembly import Assembly
from mxopt.engine.kernel import BATCHES, HYPERS, KERNEL, N_BATCHES, PIECE_WORDS, PIECES, SUMS, Kernel
from mxopt.engine.trace import trace
from mxopt.rules.rule import Rule, parameters

DIGITS = 70  # two that stay zero, 66 that a sum's bits can be in, and two for what is carried

EXACT_SUM = f"""
declare i64 @llvm.ctlz.i64(i64, i1)
declare double @llvm.sqrt.f64(double)
declare i64 @llvm.umax.i64(i64, i64)
declare i64 @llvm.fshl.i64(i64, i64, i64)

define internal double @exact_sum(ptr %numbers, i64 %count, i64 %step) {{
  %digits = alloca i64, i64 {DIGITS}
  br label %clear
clear:
  %c = phi i64 [ 0, %0 ], [ %c.next, %clear ]
  %c.at = getelementptr i64, ptr %digits, i64 %c
  store i64 0, ptr %c.at
  %c.next = add i64 %c, 1
  %cleared = icmp eq i64 %c.next, {DIGITS}
  br i1 %cleared, label %number, label %clear
number:
  %k = phi i64 [ 0, %clear ], [ %k.next, %added ]
  %endless = phi double [ 0.0, %clear ], [ %endless.next, %added ]
  %all = icmp eq i64 %k, %count
  br i1 %all, label %carry, label %look
look:
  %x.word = mul i64 %k, %step
  %x.at = getelementptr double, ptr %numbers, i64 %x.word
  %x = load double, ptr %x.at
  %bits = load i64, ptr %x.at
  %exponent.signed = lshr i64 %bits, 52
  %exponent = and i64 %exponent.signed, 2047
  %not.finite = icmp eq i64 %exponent, 2047
  br i1 %not.finite, label %endless.add, label %add
endless.add:
  %more.endless = fadd double %endless, %x
  br label %added
add:
  %fraction = and i64 %bits, 4503599627370495
  %normal = icmp ne i64 %exponent, 0
  %hidden = select i1 %normal, i64 4503599627370496, i64 0
  %mantissa = or i64 %fraction, %hidden
  %at.least = call i64 @llvm.umax.i64(i64 %exponent, i64 1)
  %shift = sub i64 %at.least, 1
  %digit = lshr i64 %shift, 5
  %within = and i64 %shift, 31
  %low = shl i64 %mantissa, %within
  %high = call i64 @llvm.fshl.i64(i64 0, i64 %mantissa, i64 %within)
  %d0 = and i64 %low, 4294967295
  %d1 = lshr i64 %low, 32
  %p0 = getelementptr i64, ptr %digits, i64 %digit
  %a0 = getelementptr i64, ptr %p0, i64 2
  %a1 = getelementptr i64, ptr %p0, i64 3
  %a2 = getelementptr i64, ptr %p0, i64 4
  %o0 = load i64, ptr %a0
  %o1 = load i64, ptr %a1
  %o2 = load i64, ptr %a2
  %n0 = add i64 %o0, %d0
  %n1 = add i64 %o1, %d1
  %n2 = add i64 %o2, %high
  store i64 %n0, ptr %a0
  store i64 %n1, ptr %a1
  store i64 %n2, ptr %a2
  br label %added
added:
  %endless.next = phi double [ %more.endless, %endless.add ], [ %endless, %add ]
  %k.next = add i64 %k, 1
  br label %number
carry:
  %i = phi i64 [ 2, %number ], [ %i.next, %carry ]
  %over = phi i64 [ 0, %number ], [ %over.next, %carry ]
  %top = phi i64 [ 0, %number ], [ %top.next, %carry ]
  %i.at = getelementptr i64, ptr %digits, i64 %i
  %i.old = load i64, ptr %i.at
  %i.sum = add i64 %i.old, %over
  %i.digit = and i64 %i.sum, 4294967295
  store i64 %i.digit, ptr %i.at
  %over.next = lshr i64 %i.sum, 32
  %some = icmp ne i64 %i.digit, 0
  %top.next = select i1 %some, i64 %i, i64 %top
  %i.next = add i64 %i, 1
  %carried = icmp eq i64 %i.next, {DIGITS}
  br i1 %carried, label %finite, label %carry
finite:
  %none.endless = fcmp oeq double %endless, 0.0
  br i1 %none.endless, label %zero, label %is.endless
is.endless:
  ret double %endless
zero:
  %nothing = icmp eq i64 %top.next, 0
  br i1 %nothing, label %is.zero, label %below
is.zero:
  ret double 0.0
below:
  %b = phi i64 [ 2, %zero ], [ %b.next, %below.more ]
  %sticky = phi i64 [ 0, %zero ], [ %sticky.next, %below.more ]
  %b.two = add i64 %b, 2
  %b.end = icmp uge i64 %b.two, %top.next
  br i1 %b.end, label %round, label %below.more
below.more:
  %b.at = getelementptr i64, ptr %digits, i64 %b
  %b.digit = load i64, ptr %b.at
  %sticky.next = or i64 %sticky, %b.digit
  %b.next = add i64 %b, 1
  br label %below
round:
  %t.at = getelementptr i64, ptr %digits, i64 %top.next
  %t1.at = getelementptr i64, ptr %t.at, i64 -1
  %t2.at = getelementptr i64, ptr %t.at, i64 -2
  %t = load i64, ptr %t.at
  %t1 = load i64, ptr %t1.at
  %t2 = load i64, ptr %t2.at
  %t.high = shl i64 %t, 32
  %two = or i64 %t.high, %t1
  %three = shl i64 %t2, 32
  %zeros = call i64 @llvm.ctlz.i64(i64 %two, i1 false)
  %upper = call i64 @llvm.fshl.i64(i64 %two, i64 %three, i64 %zeros)
  %lower = shl i64 %three, %zeros
  %rest = or i64 %lower, %sticky
  %inexact = icmp ne i64 %rest, 0
  %last = zext i1 %inexact to i64
  %rounding = or i64 %upper, %last
  %value = uitofp i64 %rounding to double
  %place = sub i64 %top.next, 2
  %place.bits = shl i64 %place, 5
  %e.zeros = sub i64 %place.bits, %zeros
  %e = sub i64 %e.zeros, {1074 + 32}
  %e1 = ashr i64 %e, 1
  %e2 = sub i64 %e, %e1
  %b1 = add i64 %e1, 1023
  %b2 = add i64 %e2, 1023
  %s1 = shl i64 %b1, 52
  %s2 = shl i64 %b2, 52
  %f1 = bitcast i64 %s1 to double
  %f2 = bitcast i64 %s2 to double
  %half = fmul double %value, %f1
  %sum = fmul double %half, %f2
  ret double %sum
}}
"""


@cache
def compiled(kernels: tuple[Kernel, ...], derivations: int) -> Callable[[int], object]:
    """A function of a job's address that runs kernels of one rule one after the other, without the
    GIL; after each of the first `derivations` the scalars that follow are written to the tensors'
    hyper-parameters, whose rows are in the tensors' order."""
    address = compile_assembly(assemble(kernels[0].rule, [*map(jit.compiled, kernels)], derivations), "passes")
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def assemble(rule: Rule, kernels: Sequence[int], derivations: int) -> str:
    """The assembly of that function, of kernels at these addresses."""
    head = ""
    lines = [
        "define void @passes(ptr %job) {",
        f"  %kernel = getelementptr i64, ptr %job, i64 {KERNEL}",
        "  call void @begin(ptr %job)",
    ]
    for step, address in enumerate(kernels):
        lines += [f"  store i64 {address}, ptr %kernel", "  call void @pass(ptr %job)"]
        if step < derivations:
            head += _derive(rule, step)
            lines.append(f"  call void @derive{step}(ptr %job)")
    return team.CALLER + EXACT_SUM + head + "\n".join([*lines, "  call void @end(ptr %job)", "  ret void", "}", ""])


def _derive(rule: Rule, step: int) -> str:
    asm, derivation, norms = Assembly("float64"), rule.derivations[step], rule.stages[step].norms
    asm.label("entry")
    pieces, batches, hypers, sums = (asm.pointer("%job", word) for word in (PIECES, BATCHES, HYPERS, SUMS))
    count = asm.word(batches, asm.word("%job", N_BATCHES))
    asm.put("br label %tensor")
    asm.label("tensor")
    asm.put("%first = phi i64 [ 0, %entry ], [ %end, %write ]")
    more = asm.let(f"icmp ult i64 %first, {count}")
    asm.put(f"br i1 {more}, label %start, label %done")
    asm.label("start")
    tensor = asm.word(pieces, asm.let(f"mul i64 %first, {PIECE_WORDS}"))
    asm.put("br label %piece")
    asm.label("piece")
    asm.put("%end = phi i64 [ %first, %start ], [ %end.next, %same ]")
    left = asm.let(f"icmp ult i64 %end, {count}")
    asm.put(f"br i1 {left}, label %whose, label %write")
    asm.label("whose")
    other = asm.word(pieces, asm.let(f"mul i64 %end, {PIECE_WORDS}"))
    same = asm.let(f"icmp eq i64 {other}, {tensor}")
    asm.put(f"br i1 {same}, label %same, label %write")
    asm.label("same")
    asm.put("%end.next = add i64 %end, 1")
    asm.put("br label %piece")
    asm.label("write")
    number = asm.let("sub i64 %end, %first")
    start = asm.at("double", sums, asm.let(f"mul i64 %first, {norms}"))
    values = []
    for k in range(norms):
        total = asm.let(f"call double @exact_sum(ptr {asm.at('double', start, k)}, i64 {number}, i64 {norms})")
        values.append(asm.let(f"call double @llvm.sqrt.f64(double {total})"))
    row = asm.at("double", hypers, asm.let(f"mul i64 {tensor}, {len(rule.hypers)}"))
    names = parameters(derivation.function)
    values += [asm.let(f"load double, ptr {asm.at('double', row, rule.hypers.index(n))}") for n in names[norms:]]
    results = asm.run_one(trace(derivation.function), values)
    for name, value in zip(derivation.names, results, strict=True):
        asm.put(f"store double {value}, ptr {asm.at('double', row, rule.hypers.index(name))}")
    asm.put("br label %tensor")
    asm.label("done")
    asm.put("ret void")
    declarations = [line for line in sorted(asm.declarations) if line not in EXACT_SUM]
    return "\n".join([*declarations, f"define internal void @derive{step}(ptr %job) {{", *asm.lines, "}", ""])
