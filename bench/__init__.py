"""Benchmarks: `micro` times functions of the compiled core, `peers` runs whole processes side by side."""
