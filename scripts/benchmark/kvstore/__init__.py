"""Rounds of the distributed stores, beside a plain echo of the same bytes and beside MXNet's."""
