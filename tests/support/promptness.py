"""How long what is to happen at once may take in a test.

Figures are measured by `make bench`, on a machine that does nothing else; a test shares its machine with others. It can
only tell what is prompted by an event from what waits for a poll, a resync or a back-off, which take longer than this.
"""

from __future__ import annotations

PROMPTLY_S = 8.0
