"""Sizes that come again: in a small model a product's shape can cost more than the product.

On a CPU oneDNN compiles each bfloat16 product for its shape and remembers some of them. Batches of
translation have hundreds of shapes, and compiling took half of a step (docs/LOG.md, 2026-11-29). So
their lengths, and the rows of every product, are rounded up to sizes of three significant bits,
four to an octave. What is added is padding, which no loss counts. In float32, and on other devices,
nothing is added.
"""

import torch

SIGNIFICANT_BITS = 3


def rounded_up(size: int) -> int:
    """Return the smallest number of three significant bits that is at least `size`."""
    unit = 1 << max(0, (size - 1).bit_length() - SIGNIFICANT_BITS)
    return -(-size // unit) * unit


def padding_of(size: int, device: torch.device, dtype: torch.dtype) -> int:
    """Return what to add to a size so that few sizes occur, where each would be compiled."""
    is_compiled = device.type == "cpu" and dtype == torch.bfloat16
    return rounded_up(size) - size if is_compiled else 0
