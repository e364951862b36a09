"""What the suite is given of a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_cri.interface import ImageService, RuntimeService


@dataclass(frozen=True, slots=True)
class Subject:
    """A runtime under test, with an image to run and a place for its logs."""

    runtime: RuntimeService
    images: ImageService
    image: str
    logs: Path
