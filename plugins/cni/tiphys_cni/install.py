"""Puts the executables into a node's CNI folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from tiphys_cni.registry import PLUGINS

DEFAULT_SOCKET = "/run/tiphys/cni.sock"
_COMPILE_TIMEOUT_S = 30.0


def install(folder: Path, socket: str, *, names: Iterable[str] = tuple(PLUGINS), compiler: str | None = "cc") -> None:
    """Writes one launcher a plugin; compiled where `compiler` is found, in Python where it isn't.

    Each file is replaced at once, so a runtime never starts half a launcher. What an earlier call has written for the
    same socket, interpreter and source stays: a compiler takes longer than all else that a start does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, wanted = shutil.which(compiler) if compiler else None, tuple(names)
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
