"""Atomic files, folders and records: what survives a crash, and what a name may be."""
