"""The project's benchmark of local updates; `scripts/bench` runs it."""
