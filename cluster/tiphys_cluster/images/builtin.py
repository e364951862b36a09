"""The images that every node has without a registry: pause, busybox, and a small web server to try things with.

They are made on the spot, pause by the C compiler and the others around Debian's static busybox, and kept in the
machine's cache under a name that holds the digest of what went in: a second start makes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tiphys_cluster.errors import ClusterError
from tiphys_cluster.images.oci import Entry, Image, architecture, archive
from tiphys_cluster.layout import CACHE
from tiphys_cluster.settings import write_atomic

PAUSE = "tiphys.dev/pause:1"
HTTPD = "tiphys.dev/httpd"
HTTPD_PORT = 8080
_COMMAND_TIMEOUT_S = 60.0

# Changed when a recipe below changes, so that no cached image of an older one is used.
_RECIPE = 2

# As small as it goes: no start-up code, no build id, one page. (696 bytes on x86-64 with gcc 12.)
_PAUSE_FLAGS = (
    *("-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-pie", "-no-pie", "-Wl,--build-id=none,-n,-z,noseparate-code", "-s"),
)
_X86_FLAGS = ("-fcf-protection=none",)

_ETC = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}

# busybox httpd runs this for / when there is no index.html. One line says who answered, which shows a service's spread.
_INDEX_CGI = b"""#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$(hostname) ${VERSION:-?}"
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one archive is made. inputs change when the result would; make returns the archive and may be slow."""

    name: str
    inputs: tuple[bytes, ...]
    make: Callable[[], bytes]

    @property
    def file_name(self) -> str:
        """The name in the cache; another one when an input changes."""
        digest = hashlib.sha256()
        for part in (str(_RECIPE).encode(), architecture().encode(), *self.inputs):
            digest.update(len(part).to_bytes(8, "big") + part)
        return f"{self.name}-{digest.hexdigest()[:16]}.tar"


def recipes(find: Callable[[str], str | None] = shutil.which) -> list[Recipe]:
    """The recipes for this machine. Raises ClusterError naming the Debian package of what is missing."""
    busybox = _require(find, ("busybox",), "busybox-static")
    compiler = _require(find, ("cc", "gcc", "clang"), "gcc")
    source = resources.files("tiphys_cluster.images").joinpath("pause.c").read_bytes()
    program = Path(busybox).read_bytes()
    return [
        Recipe("pause", (source,), lambda: _make_pause(compiler, source)),
        Recipe("busybox", (program,), lambda: _make_busybox(busybox, program)),
        Recipe("httpd-1", (program, _INDEX_CGI), lambda: _make_httpd(busybox, program, "1")),
        Recipe("httpd-2", (program, _INDEX_CGI), lambda: _make_httpd(busybox, program, "2")),
    ]


def ensure_archives(cache: Path) -> list[Path]:
    """The archives of all built-in images, made where the cache has them not. Blocks; raises ClusterError."""
    stamp = cache / "archives.json"
    if kept := _read_stamp(stamp):
        return kept
    paths: list[Path] = []
    for recipe in recipes():
        path = cache / recipe.file_name
        if not path.exists():
            write_atomic(path, recipe.make(), mode=0o644)
        paths.append(path)
    _write_stamp(stamp, paths)
    return paths


def _fingerprint() -> list[object]:
    # Hashing a busybox of 2 MB on each start would be felt; its size and time say enough.
    found = shutil.which("busybox")
    if found is None:
        return []
    info = Path(found).stat()
    source = resources.files("tiphys_cluster.images").joinpath("pause.c").read_bytes()
    return [_RECIPE, found, info.st_size, info.st_mtime_ns, hashlib.sha256(source + _INDEX_CGI).hexdigest()]


def _read_stamp(stamp: Path) -> list[Path]:
    try:
        record = json.loads(stamp.read_text())
        paths = [Path(text) for text in record["paths"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    is_fresh = record.get("inputs") == _fingerprint() and all(path.exists() for path in paths)
    return paths if is_fresh else []


def _write_stamp(stamp: Path, paths: list[Path]) -> None:
    write_atomic(stamp, json.dumps({"inputs": _fingerprint(), "paths": [str(path) for path in paths]}), mode=0o644)


def _require(find: Callable[[str], str | None], names: tuple[str, ...], package: str) -> str:
    for name in names:
        if found := find(name):
            return found
    raise ClusterError(f"{names[0]} is not installed, and images are built with it", f"apt-get install {package}")


def _run(argv: list[str]) -> bytes:
    try:
        return subprocess.run(argv, check=True, capture_output=True, timeout=_COMMAND_TIMEOUT_S).stdout
    except subprocess.CalledProcessError as err:
        text = err.stderr.decode(errors="replace").strip()
        raise ClusterError(f"cannot build an image: {argv[0]} failed: {text[-1000:]}") from err
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ClusterError(f"cannot build an image: {argv[0]}: {err}") from err


def _make_pause(compiler: str, source: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="tiphys-pause-") as directory:
        text, program = Path(directory, "pause.c"), Path(directory, "pause")
        text.write_bytes(source)
        flags = (*_PAUSE_FLAGS, *(_X86_FLAGS if architecture() == "amd64" else ()))
        _run([compiler, *flags, "-o", str(program), str(text)])
        content = program.read_bytes()
    return archive(Image((PAUSE,), {"pause": Entry(content)}, entrypoint=("/pause",), user="65535:65535"))


def _busybox_entries(busybox: str, program: bytes) -> dict[str, Entry]:
    applets = _run([busybox, "--list"]).decode().split()
    entries = {f"bin/{name}": Entry(target="busybox") for name in applets if name != "busybox"}
    entries["bin/busybox"] = Entry(program)
    entries |= {path: Entry(content, mode=0o644) for path, content in _ETC.items()}
    entries |= {"tmp": Entry(mode=0o1777), "root": Entry(mode=0o700), "home": Entry()}
    return entries | {"usr/bin": Entry(), "var/tmp": Entry(mode=0o1777)}


def busybox_version(text: str) -> str:
    """The version in the first line that busybox prints, such as 1.35.0; empty when it is not there."""
    match = re.search(r"BusyBox v(\d+\.\d+(?:\.\d+)?)", text)
    return match[1] if match else ""


def _make_busybox(busybox: str, program: bytes) -> bytes:
    version = busybox_version(_run([busybox]).decode(errors="replace"))
    tags = ("latest", *([version] if version else []))
    names = tuple(f"docker.io/library/busybox:{tag}" for tag in tags)
    return archive(Image(names, _busybox_entries(busybox, program), command=("sh",), environment=_PATH))


def _make_httpd(busybox: str, program: bytes, version: str) -> bytes:
    entries = _busybox_entries(busybox, program)
    entries |= {"www/cgi-bin/index.cgi": Entry(_INDEX_CGI), "www/healthz": Entry(b"ok\n", mode=0o644)}
    names = (f"{HTTPD}:{version}", *((f"{HTTPD}:latest",) if version == "1" else ()))
    # As the first process of a container httpd would not hear TERM, and every stop would take the whole grace period.
    script = f"trap 'kill $!' TERM; /bin/httpd -f -p {HTTPD_PORT} -h /www & wait $!"
    command = ("/bin/sh", "-c", script)
    return archive(Image(names, entries, entrypoint=command, environment=(*_PATH, f"VERSION={version}")))


_PATH = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def main() -> int:
    """python -m tiphys_cluster.images.builtin: build into the machine's cache."""
    for path in ensure_archives(CACHE / "images"):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
