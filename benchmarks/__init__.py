"""Measurements, kept results, and the pages that are generated; none of it is installed."""
