"""Remembers which specs of pods were found right: those of one owner differ in nothing but the token volume's name.

A spec is known by a digest of its bytes in which that name is masked wherever it stands. The mask has a byte that no
bytes with it are ever remembered by, so two specs have the same digest only if renaming the volume turns one into the
other; and names made by admission are alike in length and letters, so that both are right or none.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from typing import Any

# Name of the volume that admission adds last.
_TOKEN_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")
MASK = b"kube-api-access-\0\0\0\0\0"


class ApprovedSpecs:
    """The specs approved last, at most so many. For one loop."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        """Whether a spec with this digest was found right."""
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        """Remember a spec that is right; an empty digest stands for none."""
        if not digest:
            return
        self._digests[digest] = None
        if len(self._digests) > self._most:
            self._digests.popitem(last=False)


def spec_digest(spec: Any) -> bytes:
    """What a spec is known by; empty for one that must be looked at each time."""
    raw: bytes = spec.SerializeToString(deterministic=True)
    if MASK in raw:
        return b""
    name = token_volume(spec)
    if name:
        raw = raw.replace(name.encode(), MASK)
    return sha256(raw).digest()


def token_volume(spec: Any) -> str:
    """Name of the volume that admission has added; empty where there is none."""
    if not spec.volumes:
        return ""
    name: str = spec.volumes[-1].name
    return name if _TOKEN_VOLUME.fullmatch(name) else ""
