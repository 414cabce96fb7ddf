"""The secret of an access token: how it is made, how a typo shows, and what is kept of it.

    parley_<43 letters and digits: 256 random bits><6 letters and digits: CRC-32 of all before>

The checksum tells a mistyped or cut secret from an unknown one without looking anything up. It
is no protection, and needs to be none: nobody guesses 256 bits. For the same reason a plain
SHA-256 is enough of a hash; a slow one protects what people make up.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

BRAND = "parley_"
_DIGITS = string.digits + string.ascii_letters
_NUM_RANDOM, _NUM_CHECK = 43, 6
_SHAPE = re.compile(rf"{BRAND}[0-9A-Za-z]{{{_NUM_RANDOM + _NUM_CHECK}}}", re.ASCII)
NUM_SHOWN = len(BRAND) + 6


def new_secret() -> str:
    """A secret that nobody has seen yet."""
    body = BRAND + _to_base62(secrets.randbits(256), _NUM_RANDOM)
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether this was once made by `new_secret`, and arrived whole."""
    if _SHAPE.fullmatch(secret) is None:
        return False
    return secret[-_NUM_CHECK:] == _checksum(secret[:-_NUM_CHECK])


def digest_of(secret: str) -> str:
    """What is kept instead of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def prefix_of(secret: str) -> str:
    """What people may see of it, to tell one from another."""
    return secret[:NUM_SHOWN]


def _checksum(body: str) -> str:
    return _to_base62(zlib.crc32(body.encode()), _NUM_CHECK)


def _to_base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
