"""Probes: measurements of trained word representations, and of the gradients that made them."""
