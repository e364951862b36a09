"""Where a proxied request goes."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1 import pod_pb2, service_pb2
from tiphys.api.discovery.v1 import discovery_pb2
from tiphys_apimachinery.errors import BadRequest, Forbidden, ServiceUnavailable
from tiphys_apiserver.rest.object_proxy import Address, parse_address, pod_target, service_target


class Objects:
    """Hands out one object by class, and a list of slices."""

    def __init__(self, *objects: Any) -> None:
        self._objects = objects

    async def get(self, cls: Any, name: str, namespace: str = "") -> Any:
        return next(one for one in self._objects if isinstance(one, cls) and one.metadata.name == name)

    async def list(self, cls: Any, namespace: str = "", **_selectors: str) -> list[Any]:
        return [one for one in self._objects if isinstance(one, cls)]


def pod(ip: str = "10.244.0.5") -> Any:
    made: Any = pod_pb2.Pod()
    made.metadata.name = "p"
    made.status.podIP = ip
    made.spec.containers.add().ports.add(name="web", containerPort=8080)
    return made


def service() -> list[Any]:
    made: Any = service_pb2.Service()
    made.metadata.name = "s"
    made.spec.ports.add(name="web", port=80)
    piece: Any = discovery_pb2.EndpointSlice()
    piece.ports.add(name="web", port=8080)
    piece.endpoints.add(addresses=["10.244.0.6"]).conditions.ready = False
    piece.endpoints.add(addresses=["10.244.0.7"]).conditions.ready = True
    return [made, piece]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("p", Address("http", "p", "")),
        ("p:web", Address("http", "p", "web")),
        ("https:p:443", Address("https", "p", "443")),
        (":p:80", Address("http", "p", "80")),
    ],
)
def test_forms_of_an_address(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["ftp:p:21", "a:b:c:d"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid address"):
        parse_address(text)


@pytest.mark.parametrize(("text", "port"), [("p", 8080), ("p:web", 8080), ("p:9", 9)])
async def test_port_of_a_pod(text: str, port: int) -> None:
    objects: Any = Objects(pod())
    target = await pod_target(objects, "default", text, "/x?y")
    assert (target.host, target.port, target.path, target.tls) == ("10.244.0.5", port, "/x?y", None)


async def test_https_is_spoken_when_asked_for() -> None:
    objects: Any = Objects(pod())
    assert (await pod_target(objects, "default", "https:p:443", "/")).tls is not None


@pytest.mark.parametrize("ip", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1"])
async def test_servers_own_surroundings_are_out_of_reach(ip: str) -> None:
    objects: Any = Objects(pod(ip))
    with pytest.raises(Forbidden, match=r"may not be reached by proxy"):
        await pod_target(objects, "default", "p", "/")


async def test_service_leads_to_a_ready_endpoint() -> None:
    objects: Any = Objects(*service())
    for text in ("s", "s:web", "s:80"):
        target = await service_target(objects, "default", text, "/")
        assert (target.host, target.port) == ("10.244.0.7", 8080)
    with pytest.raises(BadRequest, match="has no port 81"):
        await service_target(objects, "default", "s:81", "/")
    lonely: Any = Objects(service()[0])
    with pytest.raises(ServiceUnavailable, match="no endpoints available"):
        await service_target(lonely, "default", "s", "/")
