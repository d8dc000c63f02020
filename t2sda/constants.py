"""Numbers that everything agrees on."""

IGNORE_INDEX = 255
"""Train id of pixels that count nowhere: neither in a loss nor in a score."""
