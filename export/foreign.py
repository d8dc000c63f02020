"""What a user says in Python about a file that `t2sda export` did not write."""

from t2sda.runtime.description import Description

__all__ = ["Description"]
