"""Compiles protos/ to Python, to one descriptor set, and their comments to JSON.

Run by `make protos`, which puts what it makes beside the .proto files, and by the build of the distribution, which
carries a copy of this file in its sdist and so needs nothing else of the project. What it makes is never committed.
Nothing is done when the outputs are newer than every input.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parents[1] / "protos"
INCLUDES = Path(grpc_tools.__file__).parent / "_proto"
# Every file: server reflection reads it.
DESCRIPTORS = "tiphys/descriptors.binpb"
# {message: [doc, {field: doc}]} of the API types: OpenAPI, hence kubectl explain, reads it.
COMMENTS = "tiphys/comments.json"


def compile_protos(root: Path = PROTOS, out: Path | None = None) -> int:
    """Compiles every .proto below root/tiphys into out, or beside it; returns how many, 0 when all was fresh."""
    out = out or root
    sources = sorted(root.glob("tiphys/**/*.proto"))
    names = [str(path.relative_to(root)) for path in sources]
    made = out / DESCRIPTORS
    newest = max(path.stat().st_mtime_ns for path in [*sources, Path(__file__)])
    outputs_exist = all((out / name).with_name(f"{Path(name).stem}_pb2.pyi").exists() for name in names)
    if made.exists() and made.stat().st_mtime_ns > newest and outputs_exist:
        return 0
    with_services = [n for n, p in zip(names, sources, strict=True) if "\nservice " in p.read_text()]
    plugins = [f"--plugin={name}={_program(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    base = ["protoc", *plugins, f"-I{root}", f"-I{INCLUDES}"]
    _run([*base, f"--python_out={out}", f"--mypy_out=quiet:{out}", *names])
    _run([*base, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *with_services])
    _run([*base, "--include_imports", "--include_source_info", f"--descriptor_set_out={made}", *names])
    everything = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())
    comments = dict(pair for file in everything.file for pair in _comments(file) if file.package.startswith("k8s.io."))
    (out / COMMENTS).write_text(json.dumps(comments, separators=(",", ":"), ensure_ascii=False))
    for file in everything.file:
        file.ClearField("source_code_info")
    made.write_bytes(everything.SerializeToString())
    for folder in {(out / name).parent for name in names}:
        _ensure_packages(folder, out / "tiphys")
    return len(sources)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[str, dict[str, str]]]]:
    """Docs of each top-level message; the API has no nested ones. Paths: descriptor.proto, SourceCodeInfo."""
    texts = {tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location}
    for i, message in enumerate(file.message_type):
        fields = {field.name: texts.get((4, i, 2, j), "") for j, field in enumerate(message.field)}
        yield f"{file.package}.{message.name}", (texts.get((4, i), ""), {k: v for k, v in fields.items() if v})


def _ensure_packages(folder: Path, top: Path) -> None:
    while folder != top.parent:
        (folder / "__init__.py").touch()
        folder = folder.parent


def _program(name: str) -> str:
    """Beside the interpreter in a virtual environment, on the path in the environment that pip builds in."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def _run(arguments: list[str]) -> None:
    if protoc.main(arguments) != 0:
        raise SystemExit(f"protoc failed; see the lines above ({arguments[-1]} was the last file)")


if __name__ == "__main__":
    count = compile_protos()
    sys.stdout.write(f"{count} .proto files compiled\n" if count else "protos are up to date\n")
