"""Two workers of which one leaves out a push, or ends early, in MXNet's loop: who lacks what is
told as soon as it is certain."""

from __future__ import annotations

import pytest
from jobs import Job, result_of

CIRCLE = (
    "no worker can go on: worker 0 waits, as worker 1 hasn't pushed key 'b' (its push number 3);"
    " worker 1 waits, as worker 0 hasn't pushed key 'a' (its push number 4)"
)


def told(leaves: str, steps: bool) -> list[str]:
    """What each worker returns, whatever its exit code."""
    with Job(2, 1) as job:
        workers = [job.start_worker(rank, "uneven.loop", {"leaves": leaves, "steps": steps}) for rank in range(2)]
        for worker in workers:
            worker.finish()
        return [result_of(worker) for worker in workers]


@pytest.mark.parametrize("leaves", ["all", "push"])
def test_a_key_left_out_by_one_worker_is_told_once_nobody_can_go_on(leaves: str) -> None:
    """Before that it may as well be one that is pushed more rarely, as with MXNet."""
    assert told(leaves, steps=False) == [f"step 3: {CIRCLE}", f"step 4: {CIRCLE}"]


@pytest.mark.parametrize(("leaves", "step"), [("push", 3), ("all", 4)])
def test_where_steps_are_counted_who_left_a_key_out_is_told_by_its_next_call(leaves: str, step: int) -> None:
    does = "pulls in step 3" if leaves == "push" else "has begun step 4"
    told_of = f"step {step}: server 0: worker 1 {does} without having pushed key 'b', which worker 0 pushed in step 3"
    assert told(leaves, steps=True)[1].startswith(told_of)


def test_a_worker_that_ends_with_fewer_pushes_is_named() -> None:
    first, second = told("rest", steps=False)
    assert second == "ended"
    assert first.startswith("step 4: server 0: worker 1 has ended with 3 pushes of key 'a'")
