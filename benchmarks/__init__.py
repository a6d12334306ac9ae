"""Benchmarks: each prints figures side by side, in one run, and says on what."""
