"""All functions that expressions of the API server may call."""

from __future__ import annotations

from typing import Final

from tiphys_apimachinery.cel.functions import COMMON, Library, library
from tiphys_apiserver.cel import authorizer

LIBRARY: Final[Library] = library(*COMMON, authorizer.ENTRIES)
