"""How threads share a job, in compiled code: the caller makes one call, and helpers need no
interpreter.

    caller                                   a helper, once its lock is released
      MODE = its own (`modes.py`)              its own = MODE
      OPEN = 1                                 while OPEN: work
      offer the job to idle helpers          work
      for each pass:                           while NEXT > 0: batch = NEXT--, in one atomic step
        NEXT = number of batches                 kernel(job, batch)
        work, and wait until DONE is that        DONE += 1
      OPEN = 0; take back the offers

A helper may come at any moment; the caller takes the batches that it doesn't take. So the caller
only waits for batches that were taken, and for helpers that came to leave the job's memory alone,
which they do after their batch.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache

from mxopt.assembler import Lines, compile_assembly
from mxopt.engine import modes
from mxopt.engine.kernel import CREW, DONE, KERNEL, MODE, N_BATCHES, NEXT, OPEN, OWNER

# The words of a helper's slot. OFFER is the address of a job, plus 1 while the helper works on it,
# or 0.
LOCK, OFFER, STOP, SLOT_WORDS = 0, 1, 2, 8
SPINS = 50  # looks at a word, about 2 µs, after which a thread yields its core between looks
_X86 = platform.machine() in ("x86_64", "AMD64")
_POSIX = os.name == "posix"


def python(name: str) -> int:
    """The address of a function of Python's own."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def new_lock() -> int:
    """A lock of Python's own, already taken. Waiting for it needs no GIL, and signals don't
    interrupt it."""
    allocate = ctypes.pythonapi.PyThread_allocate_lock
    allocate.restype = ctypes.c_void_p
    lock = allocate()
    if not lock:
        raise MemoryError("no memory for a lock")
    acquire()(lock, 1)
    return int(lock)


@cache
def acquire() -> Callable[[int, int], int]:
    """A function that takes a lock while other Python threads run."""
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(python("PyThread_acquire_lock"))


def leave(asm: Lines) -> None:
    """Writes the end of a function that runs a job: any thread may have the job again."""
    asm.put(f"store atomic i64 0, ptr {asm.at('i64', '%job', OWNER)} release, align 8")


def _mode(asm: Lines, function: int) -> None:
    """Calls the function of `modes.addresses`: notes this thread's mode in the job, or takes that
    which is there."""
    found = modes.addresses()
    if found is not None:
        place = asm.at("i64", "%job", MODE)
        asm.put(f"call i32 inttoptr (i64 {found[function]} to ptr)(ptr {place})")


def write_caller(asm: Lines) -> None:
    """Writes `begin`, `pass` and `end` of a job, for modules that call them."""
    with asm.function("internal void @rest(i64 %looks)"):
        if _X86:
            asm.declarations.add("declare void @llvm.x86.sse2.pause()")
            asm.put("call void @llvm.x86.sse2.pause()")
        if _POSIX:
            asm.declarations.add("declare i32 @sched_yield()")
            asm.when(asm.let(f"icmp ugt i64 %looks, {SPINS}"), lambda: asm.put("call i32 @sched_yield()"))
        asm.put("ret void")

    with asm.function("internal void @work(ptr %job)"):
        left, done = asm.at("i64", "%job", NEXT), asm.at("i64", "%job", DONE)
        with asm.loop("batch") as (loop,):
            seen = asm.let(f"load atomic i64, ptr {left} monotonic, align 8")
            loop.until(asm.let(f"icmp sle i64 {seen}, 0"))
            last = asm.let(f"atomicrmw sub ptr {left}, i64 1 acquire")
            loop.until(asm.let(f"icmp sle i64 {last}, 0"))
            batch = asm.let(f"sub i64 {asm.word('%job', N_BATCHES)}, {last}")
            asm.put(f"call void {asm.pointer('%job', KERNEL)}(ptr %job, i64 {batch})")
            asm.put(f"atomicrmw add ptr {done}, i64 1 release")
            loop.again()
        asm.put("ret void")

    with asm.function("internal void @pass(ptr %job)"):
        number, done = asm.word("%job", N_BATCHES), asm.at("i64", "%job", DONE)
        asm.put(f"store i64 0, ptr {done}")
        asm.put(f"store atomic i64 {number}, ptr {asm.at('i64', '%job', NEXT)} release, align 8")
        asm.put("call void @work(ptr %job)")
        _wait(asm, lambda: asm.let(f"icmp eq i64 {_acquired(asm, done)}, {number}"))
        asm.put("ret void")

    with asm.function("internal void @begin(ptr %job)"):
        offered = asm.let("ptrtoint ptr %job to i64")
        _mode(asm, 0)
        asm.put(f"store atomic i64 1, ptr {asm.at('i64', '%job', OPEN)} release, align 8")

        def offer(slot: str) -> None:
            pair = asm.let(f"cmpxchg ptr {asm.at('i64', slot, OFFER)}, i64 0, i64 {offered} acq_rel monotonic")
            wake = f"call void inttoptr (i64 {python('PyThread_release_lock')} to ptr)(ptr"
            asm.when(_taken(asm, pair), lambda: asm.put(f"{wake} {asm.pointer(slot, LOCK)})"))

        _each_helper(asm, offer)
        asm.put("ret void")

    with asm.function("internal void @end(ptr %job)"):
        offered = asm.let("ptrtoint ptr %job to i64")
        inside = asm.let(f"or i64 {offered}, 1")
        asm.put(f"store atomic i64 0, ptr {asm.at('i64', '%job', OPEN)} release, align 8")

        def take_back(slot: str) -> None:
            place = asm.at("i64", slot, OFFER)
            asm.put(f"cmpxchg ptr {place}, i64 {offered}, i64 0 acq_rel acquire")
            _wait(asm, lambda: asm.let(f"icmp ne i64 {_acquired(asm, place)}, {inside}"))

        _each_helper(asm, take_back)
        asm.put("ret void")


def _acquired(asm: Lines, address: str) -> str:
    return asm.let(f"load atomic i64, ptr {address} acquire, align 8")


def _taken(asm: Lines, pair: str) -> str:
    """Whether a `cmpxchg` has stored its value."""
    return asm.let(f"extractvalue {{ i64, i1 }} {pair}, 1")


def _wait(asm: Lines, over: Callable[[], str]) -> None:
    """Writes a loop that waits until the condition that `over` writes holds."""
    with asm.loop("look", ("i64", "0")) as (loop, looks):
        loop.until(over())
        asm.put(f"call void @rest(i64 {looks})")
        loop.again(asm.let(f"add i64 {looks}, 1"))


def _each_helper(asm: Lines, write: Callable[[str], None]) -> None:
    """Writes a loop over the slots of the job's crew, with what `write` writes for each."""
    crew = asm.pointer("%job", CREW)

    def each() -> None:
        number = asm.word(crew, 0)
        with asm.loop("helper", ("i64", "0"), ("ptr", crew)) as (loop, k, before):
            loop.until(asm.let(f"icmp eq i64 {k}, {number}"))
            slot = asm.at("i64", before, SLOT_WORDS)
            write(slot)
            loop.again(asm.let(f"add i64 {k}, 1"), slot)

    asm.when(asm.let(f"icmp ne ptr {crew}, null"), each)


def _write_run(asm: Lines) -> None:
    with asm.function("void @run(ptr %job)"):
        alone = asm.let(f"icmp eq ptr {asm.pointer('%job', CREW)}, null")
        number = asm.let(f"select i1 {alone}, i64 {asm.word('%job', N_BATCHES)}, i64 0")
        kernel = asm.pointer("%job", KERNEL)
        with asm.loop("batch", ("i64", "0")) as (loop, k):
            loop.until(asm.let(f"icmp uge i64 {k}, {number}"))
            asm.put(f"call void {kernel}(ptr %job, i64 {k})")
            loop.again(asm.let(f"add i64 {k}, 1"))

        def together() -> None:
            for step in ("begin", "pass", "end"):
                asm.put(f"call void @{step}(ptr %job)")

        asm.when(asm.let(f"xor i1 {alone}, true"), together)
        leave(asm)
        asm.put("ret void")


def _write_serve(asm: Lines) -> None:
    with asm.function("internal void @help(ptr %job)"):
        opened = asm.at("i64", "%job", OPEN)
        _mode(asm, 1)

        def over() -> str:
            asm.put("call void @work(ptr %job)")
            return asm.let(f"icmp eq i64 {_acquired(asm, opened)}, 0")

        _wait(asm, over)
        asm.put("ret void")

    with asm.function("void @serve(ptr %slot)"):
        lock, place, stop = asm.pointer("%slot", LOCK), asm.at("i64", "%slot", OFFER), asm.at("i64", "%slot", STOP)
        with asm.loop("sleep") as (loop,):
            asm.put(f"call i32 inttoptr (i64 {python('PyThread_acquire_lock')} to ptr)(ptr {lock}, i32 1)")
            loop.until(asm.let(f"icmp ne i64 {_acquired(asm, stop)}, 0"))
            offered = _acquired(asm, place)

            def enter() -> None:
                inside = asm.let(f"or i64 {offered}, 1")
                pair = asm.let(f"cmpxchg ptr {place}, i64 {offered}, i64 {inside} acq_rel monotonic")
                asm.when(_taken(asm, pair), work)

            def work() -> None:
                asm.put(f"call void @help(ptr {asm.let(f'inttoptr i64 {offered} to ptr')})")
                asm.put(f"store atomic i64 0, ptr {place} release, align 8")

            asm.when(asm.let(f"icmp ne i64 {offered}, 0"), enter)
            loop.again()
        asm.put("ret void")


def _compiled(name: str, write: Callable[[Lines], None]) -> int:
    asm = Lines()
    write_caller(asm)
    write(asm)
    return compile_assembly(asm.module(), name)


@cache
def runner(release: bool) -> Callable[[int], object]:
    """A function of a job's address that does all batches with the job's only kernel, without the
    GIL if `release`. Letting other Python threads run costs about 60 ns."""
    kind = ctypes.CFUNCTYPE if release else ctypes.PYFUNCTYPE
    return kind(None, ctypes.c_void_p)(_run())


@cache
def _run() -> int:
    return _compiled("run", _write_run)


@cache
def server() -> Callable[[int], object]:
    """A function of a slot's address that helps with each job offered there, until it is
    stopped."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_compiled("serve", _write_serve))
