"""Layers, the language model, tying, initialisation and the head loss."""
