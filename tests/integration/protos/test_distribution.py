"""The contracts as a distribution of their own: built from the checkout, installed from its sdist alone."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hack.rooms import ROOT

# A package of somebody else, whose contract names types of ours.
FOREIGN = """
syntax = "proto3";
package example.v1;
import "tiphys/api/core/v1/pod.proto";
import "tiphys/thirdparty/deviceplugin/v1beta1/api.proto";
message Placement {
  k8s.io.api.core.v1.Pod pod = 1;
  repeated v1beta1.Device devices = 2;
}
service Placer { rpc Place(Placement) returns (Placement); }
"""

USE = """
from example import placement_pb2, placement_pb2_grpc
placement = placement_pb2.Placement()
placement.pod.metadata.name = "web"
placement.devices.add(ID="gpu0", health="Healthy")
again = placement_pb2.Placement.FromString(placement.SerializeToString())
print(again.pod.metadata.name, again.devices[0].ID, placement_pb2_grpc.PlacerStub.__name__)
"""

IMPORT_ALL = """
import importlib, pathlib, tiphys
top = pathlib.Path(tiphys.__file__).parent
modules = sorted(path for path in top.rglob("*_pb2*.py"))
for path in modules:
    importlib.import_module(".".join(path.relative_to(top.parent).with_suffix("").parts))
print(len(modules), len(list(top.rglob("*.proto"))))
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A virtual environment that holds the distribution, and the archives it came from."""

    python: Path
    folder: Path
    sdist: Path
    wheel: Path

    def run(self, *arguments: str) -> str:
        """What the environment's Python prints, started in an empty folder and without the caller's search path."""
        return run(self.python, "-I", *arguments, cwd=self.folder)


def run(python: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run([str(python), *arguments], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("protos")
    dist, empty = folder / "dist", folder / "empty"
    dist.mkdir()
    empty.mkdir()
    for name in ("build", "venv"):
        venv.create(folder / name, with_pip=True)
    build, python = (folder / name / "bin" / "python" for name in ("build", "venv"))
    run(build, "-m", "pip", "install", "--quiet", "hatchling", cwd=folder)
    run(build, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(dist), cwd=ROOT / "protos")
    run(build, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), str(ROOT / "protos"), cwd=folder)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", str(sdist), cwd=folder)
    return Installed(python, empty, sdist, wheel)


def test_installs_with_the_runtimes_of_protobuf_and_grpc_only(installed: Installed) -> None:
    listed = {line.split("==")[0].lower() for line in installed.run("-m", "pip", "freeze").splitlines()}
    names = {line.split(" @ ")[0] for line in listed}
    assert {"tiphys-protos", "protobuf", "grpcio"} <= names
    assert not {name for name in names if name.startswith("tiphys")} - {"tiphys-protos"}
    assert not {"grpcio-tools", "mypy-protobuf", "hatchling"} & names


def test_every_contract_is_there_compiled_and_as_source(installed: Installed) -> None:
    sources = sorted((ROOT / "protos").rglob("*.proto"))
    modules, protos = map(int, installed.run("-c", IMPORT_ALL).split())
    assert protos == len(sources)
    services = sum("\nservice " in path.read_text() for path in sources)
    assert modules == len(sources) + services


def test_pod_is_imported_by_the_path_of_its_contract(installed: Installed) -> None:
    code = "from tiphys.api.core.v1 import pod_pb2; print(pod_pb2.Pod.DESCRIPTOR.full_name, pod_pb2.__file__)"
    name, file = installed.run("-c", code).split()
    assert name == "k8s.io.api.core.v1.Pod"
    assert str(ROOT) not in file


def test_wheel_of_the_checkout_and_installed_sdist_hold_the_same(installed: Installed) -> None:
    top = Path(installed.run("-c", "import tiphys; print(tiphys.__file__)").strip()).parent.parent
    with zipfile.ZipFile(installed.wheel) as archive:
        of_wheel = {name for name in archive.namelist() if name.startswith("tiphys/")}
    of_sdist = {path.relative_to(top).as_posix() for path in (top / "tiphys").rglob("*") if path.is_file()}
    assert {name for name in of_sdist if "__pycache__" not in name} == of_wheel
    assert "tiphys/py.typed" in of_wheel


def test_sdist_holds_sources_and_their_compiler_and_nothing_compiled(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "compile_protos.py", "README.md", "LICENSE", "tiphys/api/core/v1/pod.proto"} <= names
    assert not {name for name in names if "_pb2" in name or name.endswith(".binpb")}


def test_protoc_compiles_another_packages_contract_against_the_installed_ones(installed: Installed) -> None:
    own = installed.folder / "own"
    (own / "example").mkdir(parents=True)
    (own / "example" / "placement.proto").write_text(FOREIGN)
    top = installed.run("-c", "import tiphys; print(tiphys.__file__)").strip().removesuffix("/tiphys/__init__.py")
    # The tools of this environment's author, here the ones of the project; the contracts are the installed ones.
    includes = ["-I.", f"-I{top}", f"-I{run(Path(sys.executable), '-c', PROTO_INCLUDES, cwd=own).strip()}"]
    arguments = ["--python_out=.", "--grpc_python_out=.", "example/placement.proto"]
    run(Path(sys.executable), "-m", "grpc_tools.protoc", *includes, *arguments, cwd=own)
    code = f"import sys; sys.path.insert(0, {str(own)!r})\n{USE}"
    assert installed.run("-c", code).split() == ["web", "gpu0", "PlacerStub"]


PROTO_INCLUDES = "import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), '_proto'))"
