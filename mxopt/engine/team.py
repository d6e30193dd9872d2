"""How threads share a job, in compiled code: the caller makes one call, and helpers need no
interpreter.

    caller                                   a helper, once its lock is released
      OPEN = 1                                 while OPEN: work
      offer the job to idle helpers          work
      for each pass:                           while NEXT > 0: batch = NEXT--, in one atomic step
        NEXT = number of batches                 kernel(job, batch)
        work, and wait until DONE is that        DONE += 1
      OPEN = 0; take back the offers

A helper may come at any moment: batches that it doesn't take are the caller's. So the caller waits
for batches that were taken, and for a helper that has come to leave the job's memory alone, which
it does when it has done its batch.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache

from mxopt.assembler import compile_assembly
from mxopt.engine.kernel import CREW, DONE, KERNEL, N_BATCHES, NEXT, OPEN

# The words of a helper's slot. OFFER is the address of a job, plus 1 while the helper is at it,
# or 0.
LOCK, OFFER, STOP, SLOT_WORDS = 0, 1, 2, 8
SPINS = 50  # looks at a word, some 2 µs, before a thread lets others have its core between two looks
_X86 = platform.machine() in ("x86_64", "AMD64")
_POSIX = os.name == "posix"


def python(name: str) -> int:
    """The address of a function of Python's own."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def new_lock() -> int:
    """A lock of Python's own, taken: of which one can wait without being woken by signals, and
    without the GIL."""
    allocate = ctypes.pythonapi.PyThread_allocate_lock
    allocate.restype = ctypes.c_void_p
    lock = allocate()
    if not lock:
        raise MemoryError("no memory for a lock")
    acquire()(lock, 1)
    return int(lock)


@cache
def acquire() -> Callable[[int, int], int]:
    """Takes a lock, while other Python threads run."""
    return ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(python("PyThread_acquire_lock"))


def _at(name: str, base: str, word: int) -> str:
    return f"%{name} = getelementptr i64, ptr %{base}, i64 {word}"


# `begin`, `pass` and `end` of a job, for the modules of those who call.
CALLER = f"""
{"declare void @llvm.x86.sse2.pause()" if _X86 else ""}
{"declare i32 @sched_yield()" if _POSIX else ""}

define internal void @rest(i64 %looks) {{
  {"call void @llvm.x86.sse2.pause()" if _X86 else ""}
  %long = icmp ugt i64 %looks, {SPINS}
  br i1 %long, label %yield, label %end
yield:
  {"call i32 @sched_yield()" if _POSIX else ""}
  br label %end
end:
  ret void
}}

define internal void @work(ptr %job) {{
  {_at("next", "job", NEXT)}
  {_at("done", "job", DONE)}
  {_at("number.at", "job", N_BATCHES)}
  {_at("kernel.at", "job", KERNEL)}
  br label %look
look:
  %left = load atomic i64, ptr %next monotonic, align 8
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %take, label %none
take:
  %last = atomicrmw sub ptr %next, i64 1 acquire
  %mine = icmp sgt i64 %last, 0
  br i1 %mine, label %do, label %none
do:
  %number = load i64, ptr %number.at
  %batch = sub i64 %number, %last
  %kernel = load ptr, ptr %kernel.at
  call void %kernel(ptr %job, i64 %batch)
  atomicrmw add ptr %done, i64 1 release
  br label %look
none:
  ret void
}}

define internal void @pass(ptr %job) {{
  {_at("number.at", "job", N_BATCHES)}
  {_at("next", "job", NEXT)}
  {_at("done", "job", DONE)}
  %number = load i64, ptr %number.at
  store i64 0, ptr %done
  store atomic i64 %number, ptr %next release, align 8
  call void @work(ptr %job)
  br label %look
look:
  %looks = phi i64 [ 0, %0 ], [ %looks.next, %wait ]
  %so.far = load atomic i64, ptr %done acquire, align 8
  %all = icmp eq i64 %so.far, %number
  br i1 %all, label %end, label %wait
wait:
  call void @rest(i64 %looks)
  %looks.next = add i64 %looks, 1
  br label %look
end:
  ret void
}}

define internal void @begin(ptr %job) {{
  {_at("open", "job", OPEN)}
  {_at("crew.at", "job", CREW)}
  %offered = ptrtoint ptr %job to i64
  store atomic i64 1, ptr %open release, align 8
  %crew = load ptr, ptr %crew.at
  %nobody = icmp eq ptr %crew, null
  br i1 %nobody, label %end, label %some
some:
  %number = load i64, ptr %crew
  br label %helper
helper:
  %k = phi i64 [ 0, %some ], [ %k.next, %next ]
  %slot.old = phi ptr [ %crew, %some ], [ %slot, %next ]
  %slot = getelementptr i64, ptr %slot.old, i64 {SLOT_WORDS}
  %k.next = add i64 %k, 1
  %all = icmp eq i64 %k, %number
  br i1 %all, label %end, label %offer
offer:
  {_at("place", "slot", OFFER)}
  %pair = cmpxchg ptr %place, i64 0, i64 %offered acq_rel monotonic
  %taken = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %taken, label %wake, label %next
wake:
  %lock = load ptr, ptr %slot
  call void inttoptr (i64 {python("PyThread_release_lock")} to ptr)(ptr %lock)
  br label %next
next:
  br label %helper
end:
  ret void
}}

define internal void @end(ptr %job) {{
  {_at("open", "job", OPEN)}
  {_at("crew.at", "job", CREW)}
  %offered = ptrtoint ptr %job to i64
  %inside = or i64 %offered, 1
  store atomic i64 0, ptr %open release, align 8
  %crew = load ptr, ptr %crew.at
  %nobody = icmp eq ptr %crew, null
  br i1 %nobody, label %end, label %some
some:
  %number = load i64, ptr %crew
  br label %helper
helper:
  %k = phi i64 [ 0, %some ], [ %k.next, %next ]
  %slot.old = phi ptr [ %crew, %some ], [ %slot, %next ]
  %slot = getelementptr i64, ptr %slot.old, i64 {SLOT_WORDS}
  %k.next = add i64 %k, 1
  %all = icmp eq i64 %k, %number
  br i1 %all, label %end, label %back
back:
  {_at("place", "slot", OFFER)}
  %pair = cmpxchg ptr %place, i64 %offered, i64 0 acq_rel acquire
  br label %look
look:
  %looks = phi i64 [ 0, %back ], [ %looks.next, %wait ]
  %now = load atomic i64, ptr %place acquire, align 8
  %there = icmp eq i64 %now, %inside
  br i1 %there, label %wait, label %next
wait:
  call void @rest(i64 %looks)
  %looks.next = add i64 %looks, 1
  br label %look
next:
  br label %helper
end:
  ret void
}}
"""

_RUN = f"""
define void @run(ptr %job) {{
  {_at("crew.at", "job", CREW)}
  %crew = load i64, ptr %crew.at
  %alone = icmp eq i64 %crew, 0
  br i1 %alone, label %here, label %together
here:
  {_at("number.at", "job", N_BATCHES)}
  {_at("kernel.at", "job", KERNEL)}
  %number = load i64, ptr %number.at
  %kernel = load ptr, ptr %kernel.at
  br label %batch
batch:
  %k = phi i64 [ 0, %here ], [ %k.next, %do ]
  %all = icmp uge i64 %k, %number
  br i1 %all, label %end, label %do
do:
  call void %kernel(ptr %job, i64 %k)
  %k.next = add i64 %k, 1
  br label %batch
together:
  call void @begin(ptr %job)
  call void @pass(ptr %job)
  call void @end(ptr %job)
  br label %end
end:
  ret void
}}
"""

_SERVE = f"""
define internal void @help(ptr %job) {{
  {_at("open.at", "job", OPEN)}
  br label %work
work:
  %looks = phi i64 [ 0, %0 ], [ %looks.next, %wait ]
  call void @work(ptr %job)
  %open = load atomic i64, ptr %open.at acquire, align 8
  %over = icmp eq i64 %open, 0
  br i1 %over, label %end, label %wait
wait:
  call void @rest(i64 %looks)
  %looks.next = add i64 %looks, 1
  br label %work
end:
  ret void
}}

define void @serve(ptr %slot) {{
  {_at("place", "slot", OFFER)}
  {_at("stop.at", "slot", STOP)}
  %lock = load ptr, ptr %slot
  br label %sleep
sleep:
  call i32 inttoptr (i64 {python("PyThread_acquire_lock")} to ptr)(ptr %lock, i32 1)
  %stop = load atomic i64, ptr %stop.at acquire, align 8
  %over = icmp ne i64 %stop, 0
  br i1 %over, label %end, label %look
look:
  %offered = load atomic i64, ptr %place acquire, align 8
  %some = icmp ne i64 %offered, 0
  br i1 %some, label %enter, label %sleep
enter:
  %inside = or i64 %offered, 1
  %pair = cmpxchg ptr %place, i64 %offered, i64 %inside acq_rel monotonic
  %mine = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %mine, label %help, label %sleep
help:
  %job = inttoptr i64 %offered to ptr
  call void @help(ptr %job)
  store atomic i64 0, ptr %place release, align 8
  br label %sleep
end:
  ret void
}}
"""


@cache
def runner(release: bool) -> Callable[[int], object]:
    """A function of a job's address that does all its batches by its only kernel, without the GIL
    if `release`: to let other Python threads run meanwhile costs some 60 ns."""
    kind = ctypes.CFUNCTYPE if release else ctypes.PYFUNCTYPE
    return kind(None, ctypes.c_void_p)(_run())


@cache
def _run() -> int:
    return compile_assembly(CALLER + _RUN, "run")


@cache
def server() -> Callable[[int], object]:
    """A function of the address of a slot: helps whoever offers a job, until it is stopped."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compile_assembly(CALLER + _SERVE, "serve"))
