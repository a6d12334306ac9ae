"""Layers, the language and the translation model, tying, initialisation and the head loss."""
