"""The optimiser, its schedule, the loop, precision and checkpoints."""
