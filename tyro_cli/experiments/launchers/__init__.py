"""Launchers: where the workers of cells run. One thin file each."""
