"""The processes of a distributed job beside its workers: one scheduler, and the servers that hold
the values."""
