"""Errors that a user can mend: what the commands print as one message, with exit code 2."""

from __future__ import annotations


class UserError(ValueError):
    """Something a user caused and can mend; the message says what was found, where, what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that a setting or an argument names does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnreadableFileError(UserError):
    """A file that exists but is not the image or video it should be."""
