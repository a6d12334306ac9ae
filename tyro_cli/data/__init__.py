"""Corpora, tokenizers, token arrays on disk, and training batches."""
