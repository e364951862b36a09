"""Pages of the reference, made of small contracts."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from hack.compile_protos import INCLUDES, PROTOS
from hack.reference import WIRE, pages, read

WIRE_FILE = f"""
syntax = "proto3";
package {WIRE};
message GetRequest {{ string name = 1; }}
message GetResponse {{ bytes object = 1; }}
"""
API_FILE = """
// Kinds of the sea.
syntax = "proto2";
package k8s.io.api.sea.v1;
import "tiphys/options/v1/options.proto";
// A ship | or *boat*.
message Ship {
  option (tiphys.options.v1.object) = {
    group: "sea", version: "v1", role: ROLE_OBJECT
    resources: [{plural: "ships", namespaced: true, short_names: ["sh"], subresources: [{name: "status"}]}]
  };
  // How it is moved.
  optional string power = 3 [
    (tiphys.options.v1.field) = {default: "sail", enum: ["sail", "oars"], required: true, immutable: true}
  ];
  optional int32 masts = 4 [(tiphys.options.v1.field) = {minimum: 1, maximum: 5}];
  map<string, Cabin> cabins = 5;
  message Cabin {
    enum Side {
      SIDE_UNSPECIFIED = 0;
      // Left.
      SIDE_PORT = 1;
    }
    optional Side side = 1;
  }
}
message Fleet { repeated Ship ships = 1; }
"""
SERVICE_FILE = """
syntax = "proto3";
package tiphys.apiserver.sea.v1;
import "tiphys/api/sea/v1/sea.proto";
// Calls for ships.
service ShipService {
  // Reads one.
  rpc Get(ShipServiceGetRequest) returns (stream ShipServiceGetResponse);
}
message ShipServiceGetRequest { string name = 1; string berth = 2; }
message ShipServiceGetResponse { .k8s.io.api.sea.v1.Ship object = 1; }
"""


def compiled(folder: Path, **files: str) -> descriptor_pb2.FileDescriptorSet:
    names = {
        "wire": "tiphys/apiserver/v1/wire.proto",
        "api": "tiphys/api/sea/v1/sea.proto",
        "service": "tiphys/apiserver/sea/v1/ship_service.proto",
    }
    for key, text in files.items():
        path = folder / names[key]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    made = folder / "made"
    includes = [f"-I{folder}", f"-I{PROTOS}", f"-I{INCLUDES}"]
    inputs = [names[key] for key in files]
    assert protoc.main(["protoc", *includes, "--include_source_info", f"--descriptor_set_out={made}", *inputs]) == 0
    return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    return pages(read(compiled(tmp_path, wire=WIRE_FILE, api=API_FILE, service=SERVICE_FILE)))


def test_each_package_has_a_page_that_the_index_links(made: dict[str, str]) -> None:
    assert set(made) == {"README.md", "apiserver.v1.md", "api.sea.v1.md", "apiserver.sea.v1.md"}
    assert "| [api.sea.v1](api.sea.v1.md) | `k8s.io.api.sea.v1` | Ship |" in made["README.md"]
    assert "| [apiserver.sea.v1](apiserver.sea.v1.md) | `tiphys.apiserver.sea.v1` | ShipService |" in made["README.md"]


@pytest.mark.parametrize(
    "line",
    [
        "Kinds of the sea.",
        r"A ship \| or \*boat\*.",
        "Resource of `sea/v1`: `ships` in a namespace, short `sh`, with `status`.",
        "| `power` | 3 | string | default `sail`; required; can't change; one of `sail`, `oars` | How it is moved. |",
        "| `masts` | 4 | int32 | 1 to 5 |  |",
        "| `cabins` | 5 | map of string to [Ship.Cabin](#shipcabin) |  |  |",
        "### Ship.Cabin",
        "| `side` | 1 | [Ship.Cabin.Side](#shipcabinside) |  |  |",
        "| `SIDE_PORT` | 1 | Left. |",
        "| `ships` | 1 | list of [Ship](#ship) |  |  |",
    ],
)
def test_page_of_objects_says(made: dict[str, str], line: str) -> None:
    assert line in made["api.sea.v1.md"].splitlines()


def test_typed_service_links_to_the_shared_layout_only_where_it_has_it(made: dict[str, str]) -> None:
    page = made["apiserver.sea.v1.md"]
    asks, answers = "[ShipServiceGetRequest](#shipservicegetrequest)", "[GetResponse](apiserver.v1.md#getresponse)"
    assert f"| `Get` | {asks} | stream of {answers} | Reads one. |" in page.splitlines()
    assert "### ShipServiceGetRequest" in page
    assert "ShipServiceGetResponse" not in page


def test_two_headings_of_one_anchor_are_refused(tmp_path: Path) -> None:
    twice = 'syntax = "proto2"; package k8s.io.api.sea.v1; message Ship {} message SHIP {}'
    with pytest.raises(ValueError, match="#ship"):
        pages(read(compiled(tmp_path, wire=WIRE_FILE, api=twice)))
