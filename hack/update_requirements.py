"""Writes deploy/requirements/: for each image the exact versions that its rooms are installed with.

One resolution for all images together, so that no two of them run different versions; each file holds what the image's
own rooms need. Versions move when this is run (`hack/update_requirements.py`); the tests only ask that the files
still satisfy the rooms' pyproject.toml.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.rooms import ROOT, Room, rooms

REQUIREMENTS = ROOT / "deploy" / "requirements"
# The image, and the rooms that its Dockerfile installs; what these import is added.
IMAGES = {
    "apiserver": ("services/apiserver",),
    "controller-manager": ("services/controller-manager",),
    "scheduler": ("services/scheduler",),
    "cluster-dns": ("services/cluster-dns",),
    "kubelet": ("services/kubelet",),
    "kube-proxy": ("services/kube-proxy",),
    "csi": ("plugins/csi",),
    "device": ("plugins/device",),
    "node": ("services/kubelet", "services/kube-proxy", "plugins/cni"),
    # What every image holds; installed in a layer that they share.
    "libs": ("libs/client",),
}
_HEAD = "# Written by `python -m hack.update_requirements` from the rooms' pyproject.toml.\n"


def own_and_foreign(room: str) -> tuple[set[str], list[Requirement]]:
    """The rooms that a room needs, itself among them, and what all of these ask of others."""
    by_name = {_distribution(room): room for room in rooms()}
    wanted, seen = [room], set[str]()
    foreign: list[Requirement] = []
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        project = tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"]
        for requirement in map(Requirement, project.get("dependencies", [])):
            if requirement.name in by_name:
                wanted.append(by_name[requirement.name].name)
            else:
                foreign.append(requirement)
    return seen, foreign


def _distribution(room: Room) -> str:
    return "tiphys-protos" if room.name == "protos" else room.package.replace("_", "-")


def needs(image: str) -> list[Requirement]:
    """What an image's rooms ask of others, as the rooms' pyproject.toml have it."""
    return [requirement for room in IMAGES[image] for requirement in own_and_foreign(room)[1]]


def read(path: Path) -> dict[str, str]:
    """Version by name of a file written here."""
    pins = (line.split("==") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def unmet(image: str) -> Iterator[str]:
    """What the image's file lacks, or holds in a version that a room does not take."""
    path = REQUIREMENTS / f"{image}.txt"
    pins = read(path) if path.exists() else {}
    for requirement in needs(image):
        version = pins.get(canonicalize_name(requirement.name), "")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            yield f"{path.relative_to(ROOT)}: {requirement} is not met ({version or 'missing'})"


def resolve(requirements: Iterable[Requirement], constraints: Mapping[str, str]) -> dict[str, str]:
    """Name and version of everything that pip would install, of versions in constraints only where it has the name."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", "-", "--constraint", file.name, *sorted({str(item) for item in requirements})]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = (item["metadata"] for item in report["install"])
    return {canonicalize_name(item["name"]): item["version"] for item in found}


def build_needs() -> list[Requirement]:
    """What builds the rooms inside an image: every room's build system, the contracts' compiler among them."""
    files = (tomllib.loads((room.path / "pyproject.toml").read_text()) for room in rooms())
    return [Requirement(item) for file in files for item in file["build-system"]["requires"]]


def main() -> int:
    """Writes every file; returns the exit code."""
    REQUIREMENTS.mkdir(parents=True, exist_ok=True)
    every = resolve([requirement for image in IMAGES for requirement in needs(image)], {})
    for image in IMAGES:
        _write(image, resolve(needs(image), every))
    _write("build", resolve(build_needs(), {}))
    return 0


def _write(name: str, pins: Mapping[str, str]) -> None:
    lines = "".join(f"{pin}=={version}\n" for pin, version in sorted(pins.items()))
    (REQUIREMENTS / f"{name}.txt").write_text(_HEAD + lines)


if __name__ == "__main__":
    raise SystemExit(main())
