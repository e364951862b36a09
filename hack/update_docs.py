"""Writes docs/reference/ anew, a page for each package of the contracts; `make verify` demands that they are fresh."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hack.compile_protos import INCLUDES, PROTOS
from hack.reference import pages, read

REFERENCE = PROTOS.parent / "docs" / "reference"


def main() -> int:
    """Writes every page and deletes those of packages that are gone; returns the exit code."""
    made = pages(read(descriptors()))
    REFERENCE.mkdir(exist_ok=True)
    for name, text in made.items():
        (REFERENCE / name).write_text(text)
    for path in REFERENCE.glob("*.md"):
        if path.name not in made:
            path.unlink()
    return 0


def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Every contract with its comments, which the descriptors that services carry do without."""
    names = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("tiphys/**/*.proto"))
    with tempfile.NamedTemporaryFile(suffix=".binpb") as made:
        arguments = [f"-I{PROTOS}", f"-I{INCLUDES}", "--include_source_info", f"--descriptor_set_out={made.name}"]
        if protoc.main(["protoc", *arguments, *names]) != 0:
            raise SystemExit("protoc failed; see the lines above")
        return descriptor_pb2.FileDescriptorSet.FromString(Path(made.name).read_bytes())


if __name__ == "__main__":
    raise SystemExit(main())
