"""Names of objects: made from a prefix, checked by the rules of their kinds."""

from __future__ import annotations

import random
from typing import Final

from tiphys_apimachinery import formats as validation

# No vowels and no look-alikes, so that no word and no misreading comes out.
# Source: apimachinery pkg/util/rand.
SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH: Final = 5
_MAX_NAME: Final = 63
_MAX_PREFIX: Final = _MAX_NAME - SUFFIX_LENGTH


def random_suffix(rng: random.Random, length: int = SUFFIX_LENGTH) -> str:
    """Random characters that are safe in any name."""
    return "".join(rng.choices(SUFFIX_ALPHABET, k=length))


def generate_name(prefix: str, rng: random.Random) -> str:
    """A name for generateName: the prefix, cut so that the whole fits 63, and five random characters.

    It may be taken; the caller tries again.
    """
    return prefix[:_MAX_PREFIX] + random_suffix(rng)


def safe_encode(text: str) -> str:
    """Text with each character replaced by one of the suffix alphabet; for hashes in names."""
    return "".join(SUFFIX_ALPHABET[ord(character) % len(SUFFIX_ALPHABET)] for character in text)


def check_generate_name(prefix: str, check: validation.Checker) -> list[str]:
    """What is wrong with a prefix under the rule of the full name: a hyphen at its end is right."""
    return check(prefix.removesuffix("-") + "a" if prefix.endswith("-") else prefix)
