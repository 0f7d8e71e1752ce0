"""The ways in which upstreams may read one path. Compiled callers only."""
