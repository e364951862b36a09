"""Puts the executables into a node's CNI folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from tiphys_cni.registry import PLUGINS

DEFAULT_SOCKET = "/run/tiphys/cni.sock"
_COMPILE_TIMEOUT_S = 30.0


def install(
    folder: Path,
    socket: str,
    *,
    names: Iterable[str] = tuple(PLUGINS),
    compiler: str | None = "cc",
    others: Path | None = None,
) -> None:
    """Writes one launcher a plugin; compiled where `compiler` is found, in Python where it isn't.

    The executables of `others` are linked in place of ours of the same name and beside the rest; links of a life before
    that are not wanted any more are taken away.

    Each file is replaced at once, so a runtime never starts half a launcher. What an earlier call has written for the
    same socket, interpreter and source stays: a compiler takes longer than all else that a start does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    links = _executables(others)
    _link(folder, links)
    found, wanted = shutil.which(compiler) if compiler else None, tuple(name for name in names if name not in links)
    mark, noted = _fingerprint(found, socket, wanted), folder / ".installed"
    if noted.exists() and noted.read_text() == mark and all((folder / name).exists() for name in wanted):
        return
    binary = folder / ".launcher.new"
    compiled = found is not None and _compile(found, binary, socket)
    for name in wanted:
        fresh = folder / f".{name}.new"
        if compiled:
            shutil.copyfile(binary, fresh)
        else:
            _write_script(fresh, name, socket)
        fresh.chmod(0o755)
        fresh.replace(folder / name)
    binary.unlink(missing_ok=True)
    noted.write_text(mark)


def _executables(folder: Path | None) -> dict[str, Path]:
    if folder is None:
        return {}
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return {path.name: path for path in files if path.is_file() and os.access(path, os.X_OK)}


def _link(folder: Path, links: Mapping[str, Path]) -> None:
    for path in folder.iterdir():
        if path.is_symlink() and path.name not in links:
            path.unlink()
    for name, target in links.items():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target.absolute())
        fresh.replace(folder / name)


def _fingerprint(compiler: str | None, socket: str, names: Sequence[str]) -> str:
    sources = [files("tiphys_cni").joinpath(f"launcher.{kind}").read_bytes() for kind in ("c", "py")]
    values = json.dumps([compiler, socket, sys.executable, names]).encode()
    return hashlib.sha256(b"".join((*sources, values))).hexdigest()


def _compile(compiler: str, target: Path, socket: str) -> bool:
    source = files("tiphys_cni").joinpath("launcher.c")
    values = {"SOCKET": socket, "PYTHON": sys.executable}
    defines = [f"-D{key}={json.dumps(value)}" for key, value in values.items()]
    # Static starts in half the time; a machine without a static libc gets the dynamic one.
    for flags in (["-static"], []):
        command = [compiler, "-O2", *flags, *defines, "-x", "c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, timeout=_COMPILE_TIMEOUT_S, check=False)
        if done.returncode == 0:
            return True
    return False


def _write_script(target: Path, plugin: str, socket: str) -> None:
    text = files("tiphys_cni").joinpath("launcher.py").read_text()
    for key, value in {"@SOCKET@": socket, "@PYTHON@": sys.executable, "@PLUGIN@": plugin}.items():
        text = text.replace(key, value)
    target.write_text(f"#!{sys.executable} -SEI\n{text}")
