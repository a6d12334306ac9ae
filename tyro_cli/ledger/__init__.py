"""Parameters, bytes and FLOPs in closed form, from the configuration alone."""
