"""Perplexity sweeps and generation."""
