"""The project's benchmark of local updates; `scripts/bench` runs it, `scripts/bench --help` says
how.

`cases` is the table of rows that drives everything: optimizers × kinds of work. For each row
`driver` asks a `worker` of every system (`systems`, each in its own Python, through `protocol`) to
prepare the case and then, in turn and round by round, to time it (`timing`, on `inputs`). The limit
is a system like the others, whose C form `touch` writes. `startup` and `contention` are the two
kinds of rows that need more than that. `machine` says who else was at work, `targets` what the
project wants, and `tables`, `terminal` and `plot` show it.
"""
