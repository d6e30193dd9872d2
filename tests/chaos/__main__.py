"""Runs real distributed jobs and disturbs them: kills, stops, cuts, late and repeated messages,
slow and full disks.

The plan of each job comes from its seed. A job of which something doesn't hold stays in its folder,
with its history, and `--replay FOLDER` carries out the same plan again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

from chaos.job import Job
from chaos.plan import Fault, Plan, drawn
from chaos.relay import Weather


def main() -> int:
    """The command."""
    p = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    p.add_argument("--minutes", type=float, default=1.0, metavar="N", help="for how long (default: 1)")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the first job; the others follow (default: 0)")
    p.add_argument("--kills", type=int, default=0, metavar="K", help="go on until so many processes were killed")
    p.add_argument("--folder", type=Path, default=Path("runs/chaos"), help="where failed jobs stay (%(default)s)")
    p.add_argument("--replay", type=Path, metavar="FOLDER", help="carry out the plan of a failed job again")
    options = p.parse_args()
    if options.replay:
        return 1 if _report(Job(_kept(options.replay), options.folder.resolve() / "replay")) else 0

    began, done, bad = time.monotonic(), Counter[str](), []
    for seed in count(options.seed):
        if time.monotonic() - began > 60 * options.minutes and done["killed"] >= options.kills:
            break
        job = Job(drawn(seed), options.folder.resolve() / f"seed-{seed}")
        faults = _report(job)
        done.update(_outcomes(job))
        if faults:
            bad.append(seed)
        else:
            shutil.rmtree(job.folder)
    kinds = ", ".join(f"{done[kind]} {kind}s" for kind in ("server", "worker", "scheduler"))
    print(f"{done['jobs']} jobs in {time.monotonic() - began:.0f} s, {done['killed']} processes killed ({kinds}), "
          f"jobs were taken up again {done['resumed']} times, {len(bad)} with faults"
          + (f": seeds {', '.join(map(str, bad))}" if bad else ""))  # fmt: skip
    return 1 if bad else 0


def _report(job: Job) -> list[str]:
    plan = job.plan
    print(f"seed {plan.seed}: {plan}", flush=True)
    faults = job.faults()
    for fault in faults:
        print(f"  FAULT {fault}", flush=True)
    if faults:
        print(f"  its history is in {job.folder / 'history.json'}; scripts/chaos --replay {job.folder}", flush=True)
    return faults


def _outcomes(job: Job) -> list[str]:
    told = "\n".join(job.history)
    killed = re.findall(r"  (server|worker|scheduler)[ 0-9]* killed at ", told)
    return ["jobs", *killed, *["killed"] * len(killed), *["resumed"] * told.count("taken up ended")]


def _kept(folder: Path) -> Plan:
    read = json.loads((folder / "history.json").read_text())["plan"]
    read["faults"] = [Fault(**fault) for fault in read["faults"]]
    read["again"] = [[Fault(**fault) for fault in faults] for faults in read["again"]]
    read["weather"] = read["weather"] and Weather(**read["weather"])
    return Plan(**read)


if __name__ == "__main__":
    sys.exit(main())
