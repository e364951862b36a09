"""What every controller keeps to, read from its code."""

from __future__ import annotations

import ast
from pathlib import Path

import tiphys_controller_manager

ROOT = Path(tiphys_controller_manager.__file__).parent


def reconcilers() -> dict[str, ast.AsyncFunctionDef]:
    """Every reconcile of a controller, by file and class."""
    found: dict[str, ast.AsyncFunctionDef] = {}
    for path in sorted((ROOT / "controllers").rglob("*.py")):
        owners = [one for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.ClassDef)]
        for owner in owners:
            for member in owner.body:
                if isinstance(member, ast.AsyncFunctionDef) and member.name == "reconcile":
                    found[f"{path.relative_to(ROOT)}:{owner.name}"] = member
    return found


def test_M7_controllers_are_told_a_key_and_nothing_else() -> None:
    """What happened is not theirs to know: an event that is lost, doubled or late changes nothing."""
    found = reconcilers()
    assert len(found) > 25
    odd = {where: ast.unparse(one.args) for where, one in found.items() if ast.unparse(one.args) != "self, key: str"}
    assert not odd


def test_M7_no_module_of_a_controller_has_state_of_its_own() -> None:
    """Only constants stand outside of classes: two managers in one process share nothing."""
    odd = []
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        odd += [f"{path.relative_to(ROOT)}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Global)]
    assert not odd
