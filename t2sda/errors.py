"""Errors that a user can fix: what the commands print as one message, with exit code 2."""

from __future__ import annotations

import errno

ENVIRONMENT_ERRORS = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ELOOP"),
        *("EMFILE", "ENFILE", "EIO", "ESTALE", "ETIMEDOUT", "EISDIR", "ENOTDIR"),
    )
)
"""Why a system refuses to open or write a file that has nothing to do with our code."""


def printable(text: str) -> str:
    """Text for a terminal: what would steer it, hide or reorder letters is spelled as an escape.

    File names may hold anything, names that are not UTF-8 among it.
    """
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )


class UserError(ValueError):
    """Something a user caused and can fix; the message says what was found, where, what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that a setting or an argument names does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class NameTooLongError(UserError):
    """A file whose path the system does not take, being too long; others may still be written."""


class UnreadableFileError(UserError):
    """A file that exists but is not the image or video it should be."""
