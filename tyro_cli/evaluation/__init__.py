"""What trained models are measured by: perplexity sweeps, generation, translation, probes."""
