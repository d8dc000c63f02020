"""Trained networks from files: loaded, run and shown; exported files without torch."""
