"""The processes of a distributed job besides its workers: one scheduler, and the servers that hold
the values."""
