"""Text that is safe to show: on one line, and without the credentials in URLs."""

from __future__ import annotations

import re

__all__ = ["counted", "printable", "without_credentials"]

# Control characters, line ends of Unicode, marks that turn the direction of writing, halves of surrogate pairs.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Up to the last @ of the word: a password may hold one, and a slash, although neither should stand there as it is.
_CREDENTIALS = re.compile(r"//\S*@")


def counted(count: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "symbol"), counted(1200, "daily file")
    ('1 symbol', '1,200 daily files')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str) -> str:
    r"""Return `text` with characters escaped that could begin a line, move the cursor or hide what follows.

    >>> printable("BTC\nUSDT")
    'BTC\\nUSDT'
    """
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_credentials(text: str) -> str:
    """Return `text` without the user name and password of any URL in it.

    >>> without_credentials("cannot reach http://me:secret@proxy:3128")
    'cannot reach http://proxy:3128'
    """
    return _CREDENTIALS.sub("//", text)
