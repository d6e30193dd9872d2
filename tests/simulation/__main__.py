"""Runs simulated jobs, and prints what doesn't hold of them: `scripts/simulate --seed 7 --jobs 1`
replays one."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from simulation.jobs import Job, drawn


def main() -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    p.add_argument("--jobs", type=int, default=1000, metavar="N", help="how many (default: 1000)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the first; the others follow (default: 0)")
    p.add_argument("--verbose", action="store_true", help="show the plans, and what the processes log")
    options = p.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL, format="%(name)s: %(message)s")
    began, bad = time.monotonic(), 0
    for seed in range(options.seed, options.seed + options.jobs):
        plan = drawn(seed)
        if options.verbose:
            print(plan)
        job = Job(plan)
        job.run()
        faults = job.faults()
        bad += bool(faults)
        for fault in faults:
            print(f"seed {seed}: {fault}", flush=True)
        if options.verbose:
            for worker in job.workers:
                print(f"{worker.name}: {worker.error or 'ended'}")
    print(f"{options.jobs} jobs in {time.monotonic() - began:.0f} s, {bad} with faults")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
