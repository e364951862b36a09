"""Versions and rooms of the images: what each needs is named, and nothing of another service is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hack.rooms import ROOT
from hack.update_requirements import IMAGES, REQUIREMENTS, build_needs, own_and_foreign, read, unmet

DOCKERFILES = {
    **{
        image: ROOT / folder / image / "Dockerfile"
        for folder in ("services", "plugins")
        for image in IMAGES
        if (ROOT / folder / image).is_dir()
    },
    "node": ROOT / "deploy" / "node" / "Dockerfile",
}
# The supervisor of a node lies in `cluster`, whose other modules stay unused there.
EXTRA = {"node": {"cluster"}}


@pytest.mark.parametrize("image", IMAGES)
def test_versions_of_an_image_meet_what_its_rooms_ask(image: str) -> None:
    assert list(unmet(image)) == []


def test_versions_of_tools_meet_what_the_rooms_builds_ask() -> None:
    pins = read(REQUIREMENTS / "build.txt")
    wrong = [need for need in build_needs() if not need.specifier.contains(pins.get(need.name.lower(), "0"))]
    assert wrong == []


def test_no_two_images_have_different_versions() -> None:
    versions: dict[str, set[str]] = {}
    for image in IMAGES:
        for name, version in read(REQUIREMENTS / f"{image}.txt").items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("image", DOCKERFILES)
def test_image_is_given_exactly_the_rooms_that_it_needs(image: str) -> None:
    text = DOCKERFILES[image].read_text()
    copied = {room for room in re.findall(r"^COPY (\S+) \1$", text, re.MULTILINE) if room != "libs"}
    installed = {word.removeprefix("./") for word in re.findall(r"\./[\w/-]+", text)} - {"./"}
    needed = set().union(*(own_and_foreign(room)[0] for room in IMAGES[image])) | EXTRA.get(image, set())
    assert installed == needed
    assert copied == {room for room in needed if not room.startswith("libs/")}


@pytest.mark.parametrize("path", [*DOCKERFILES.values(), ROOT / "deploy" / "certificates" / "Dockerfile"], ids=str)
def test_images_begin_alike_so_that_the_builder_does_it_once(path: Path) -> None:
    first = DOCKERFILES["apiserver"].read_text()
    shared = first[first.index("FROM ") : first.index("# Up to here")]
    assert shared in path.read_text()
