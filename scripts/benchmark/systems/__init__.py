"""The systems that are measured, one module each.

A module has `version()`, `ways(case)` (how a case may be run; none where the system has no such
update) and `build(case, way)`, which returns a `timing.Job`. It is imported by a worker of the
system's own Python. `COMPARED` ways (one, if it doesn't say) are measured all along, not only in
the trial that comes first.
"""
