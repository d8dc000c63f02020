"""t2sda: domain-adaptive semantic segmentation from rendered streets to real ones."""

__version__ = "0.1.0"
