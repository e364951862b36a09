"""Which nodes have which container images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Image:
    """One image by one of its names. size_bytes is what the first node said; version rises with each change."""

    size_bytes: int
    has: NDArray[np.bool_]
    nodes: int = 0
    version: int = 0


class Images:
    """Images by name, a mask of rows each."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._images: dict[str, Image] = {}
        self._of_row: dict[int, frozenset[str]] = {}
        self._version = 0

    def find(self, name: str) -> Image | None:
        """An image that at least one node has."""
        return self._images.get(name)

    def set(self, row: int, sizes: Mapping[str, int]) -> None:
        """All images of a row, size by name."""
        old, new = self._of_row.get(row, frozenset()), frozenset(sizes)
        if old == new:
            return
        self._drop(row, old - new)
        for name in new - old:
            image = self._images.get(name)
            if image is None:
                image = self._images[name] = Image(sizes[name], np.zeros(self._rows, np.bool_))
            self._count(image, row, has=True)
        self._of_row[row] = new
        if not new:
            del self._of_row[row]

    def grow(self, rows: int) -> None:
        """More rows, without images."""
        for image in self._images.values():
            image.has = np.pad(image.has, (0, rows - self._rows))
        self._rows = rows

    def _drop(self, row: int, names: Iterable[str]) -> None:
        for name in names:
            image = self._images[name]
            self._count(image, row, has=False)
            if not image.nodes:
                del self._images[name]

    def _count(self, image: Image, row: int, *, has: bool) -> None:
        image.has[row] = has
        image.nodes += 1 if has else -1
        # Over all images, so that one which went and came again is not taken for what it was.
        self._version += 1
        image.version = self._version
