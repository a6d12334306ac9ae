"""Benchmarks: our program against its peers, side by side in one run.

`measuring` runs a case, `process` is one measurement in a process of its own, `report` writes what
came out. Every other module is a group of cases, or the loops that they time (`ours`, `peers`).
"""
