"""wtie: train paired Transformers that differ only in weight tying, and compare them."""

__version__ = "0.1.0"
