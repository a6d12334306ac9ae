"""The plan of cells, the confound guard, the worker of one cell, and launchers."""
