"""The checks of layout find what they are there for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hack import verify_rooms
from hack.rooms import FLAGS_BEGIN, FLAGS_END, ROOT, Room, flags_table
from hack.update_rooms import with_flags


def offences_of(source: str) -> list[str]:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return list(verify_rooms.function_offences(node, "x.py", check_arguments=True))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        pytest.param("def f(a, b, c, d): ...", "", id="four by position"),
        pytest.param("def f(self, a, b, c, d): ...", "", id="self does not count"),
        pytest.param("def f(a, b, c, d, *, e, f): ...", "", id="the rest by name"),
        pytest.param("def f(a, b, c, d, e): ...", "positional", id="five by position"),
        pytest.param("def f():\n" + "    pass\n" * 59, "", id="sixty lines"),
        pytest.param("def f():\n" + "    pass\n" * 60, "lines", id="sixty-one lines"),
    ],
)
def test_walls_of_functions(source: str, word: str) -> None:
    found = offences_of(source)
    assert (len(found) == 1 and word in found[0]) if word else not found


@pytest.mark.parametrize(
    ("source", "is_bare"),
    [
        ("asyncio.create_task(x())", True),
        ("asyncio.get_running_loop().create_task(x())", True),
        ("asyncio.ensure_future(x())", True),
        ("create_task(x())", True),
        ("group.create_task(x())", False),
        ("self._group.create_task(x())", False),
    ],
)
def test_tasks_outside_of_groups_are_found(source: str, is_bare: bool) -> None:
    call = ast.parse(source).body[0]
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    assert verify_rooms.makes_bare_task(call.value) is is_bare


def test_flags_of_a_readme_are_written_between_its_marks() -> None:
    text = f"# x\n\n{FLAGS_BEGIN}\nold\n{FLAGS_END}\nrest\n"
    fresh = with_flags(text, "| new |")
    assert fresh == f"# x\n\n{FLAGS_BEGIN}\n| new |\n{FLAGS_END}\nrest\n"
    assert with_flags(fresh, "| new |") == fresh


def test_flags_of_a_second_service_are_written_where_its_module_is_named() -> None:
    mark = "<!-- flags of tiphys_cni.flannel.options: written by … -->"
    fresh = with_flags(f"# x\n{mark}\nold\n{FLAGS_END}\nrest\n", "")
    assert "\nold\n" not in fresh
    assert "| `--backend` | `vxlan` | how packets get to other nodes |" in fresh
    assert fresh.endswith(f"|\n{FLAGS_END}\nrest\n")
    assert with_flags(fresh, "") == fresh


def test_readme_without_marks_is_told() -> None:
    with pytest.raises(ValueError, match="end of flags"):
        with_flags("# x\n", "| new |")


def test_table_of_flags_holds_each_flag_with_its_default() -> None:
    table = flags_table(Room(ROOT / "services" / "kubelet", "tiphys_kubelet"))
    assert "| `--hostname-override`, `--node-name` |" in table
    assert "| `--port` | `10250` |" in table


def test_library_has_no_table_of_flags() -> None:
    assert flags_table(Room(ROOT / "libs" / "component", "tiphys_component")) == ""


@pytest.mark.parametrize(
    "text",
    ["see /home/" + "ann/src", "at /work/" + "tree", "--index-" + "url=x", "http://py" + "pi.example/simple"],
)
def test_words_of_foreign_machines_are_found(text: str) -> None:
    assert any(pattern.search(text) for pattern, _ in verify_rooms.FOREIGN)


@pytest.mark.parametrize("text", ["$work/area", "network/home", "/var/lib/tiphys/default", "a/root/b"])
def test_other_paths_pass(text: str) -> None:
    assert not any(pattern.search(text) for pattern, _ in verify_rooms.FOREIGN)


def test_init_that_runs_something_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_rooms, "ROOT", tmp_path)
    file = tmp_path / "__init__.py"
    file.write_text('"""A room."""\n')
    assert verify_rooms.is_only_docstring(file)
    file.write_text('"""A room."""\nimport os\n')
    assert not verify_rooms.is_only_docstring(file)
