"""The contract of the layers can fail: a component that imports another, or a lower room that imports a higher one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from hack.rooms import ROOT

COMPONENTS = (
    "tiphys_apiserver",
    "tiphys_scheduler",
    "tiphys_controller_manager",
    "tiphys_kubelet",
    "tiphys_kube_proxy",
    "tiphys_cluster_dns",
)


def settings() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["tool"]["importlinter"]
    return found


def lint(folder: Path, imports: dict[str, list[str]]) -> tuple[int, str]:
    """The verdict of this repository's contracts on packages of these names that import as told."""
    modules = {*settings()["root_packages"], *imports}
    for contract in settings()["contracts"]:
        modules.update(contract.get("source_modules", ()))
    for name in sorted(modules):
        path = folder.joinpath(*name.split("."))
        path.mkdir(parents=True, exist_ok=True)
        (path / "__init__.py").write_text("".join(f"import {one}\n" for one in imports.get(name, ())))
    text = (ROOT / "pyproject.toml").read_text()
    start = text.index("[tool.importlinter]")
    after = re.search(r"^\[+tool\.(?!importlinter)", text[start:], re.MULTILINE)
    (folder / "pyproject.toml").write_text(text[start : start + after.start() if after else None])
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_M14_components_that_use_only_the_client_pass(tmp_path: Path) -> None:
    imports = {name: ["tiphys_client", "tiphys_component"] for name in COMPONENTS}
    code, said = lint(tmp_path, imports)
    assert code == 0, said


def test_M14_every_component_that_imports_another_is_told_of(tmp_path: Path) -> None:
    imports = {name: [other for other in COMPONENTS if other != name] for name in COMPONENTS}
    code, said = lint(tmp_path, imports)
    assert code == 1
    missed = [(one, other) for one, other in permutations(COMPONENTS, 2) if f"{one} -> {other}" not in said]
    assert not missed, said


@pytest.mark.parametrize("name", ["tiphys_client", "tiphys_apimachinery", "tiphys_component"])
def test_M14_what_all_stand_on_imports_no_component(tmp_path: Path, name: str) -> None:
    code, said = lint(tmp_path, {name: ["tiphys_apiserver"]})
    assert code == 1
    assert f"{name} -> tiphys_apiserver" in said


def test_M14_the_contract_names_every_component(tmp_path: Path) -> None:
    """A service that no contract knew could import what it likes."""
    services = {path.name for folder in (ROOT / "services").iterdir() for path in folder.glob("tiphys_*")}
    assert services == set(COMPONENTS)
    (layers,) = (contract["layers"] for contract in settings()["contracts"] if contract["type"] == "layers")
    assert services in [set(layer.split(" | ")) for layer in layers]
