"""A round of an operator: what it writes, what it deletes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from examples.operators.site import Site
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_apimachinery.errors import Conflict, NotFound
from tiphys_apimachinery.meta import get_controller_of
from tiphys_client.controller import Terminal
from tiphys_sdk.operators.work import Desk, Work, key_of, owner_uids


@dataclass
class Server:
    """Client, copies and events in one."""

    objects: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    version: int = 0
    fail: Exception | None = None

    async def patch(self, cls: Any, name: str, namespace: str, patch: Any, **more: Any) -> Any:
        self.calls.append(f"{more['type']} {cls.__name__} {name} {more.get('subresource', '')}".strip())
        if self.fail is not None:
            raise self.fail
        self.version += 1
        if more.get("subresource"):
            return None
        made = self.objects.setdefault(f"{namespace}/{name}", cls())
        made.metadata.name, made.metadata.namespace, made.metadata.resourceVersion = name, namespace, str(self.version)
        made.metadata.ClearField("ownerReferences")
        for owner in patch["metadata"]["ownerReferences"]:
            made.metadata.ownerReferences.add(**owner)
        return made

    async def delete(self, cls: Any, name: str, namespace: str, **more: Any) -> None:
        self.calls.append(f"delete {cls.__name__} {name}")
        if self.fail is not None:
            raise self.fail
        self.objects.pop(f"{namespace}/{name}", None)

    def get(self, key: str) -> Any:
        return self.objects.get(key)

    def list(self) -> list[Any]:
        return list(self.objects.values())

    def by_index(self, _index: str, uid: str) -> Sequence[Any]:
        return [obj for obj in self.objects.values() if uid in owner_uids(obj)]

    def event(self, obj: Any, type: str, reason: str, message: str) -> None:
        self.calls.append(f"{type} {reason}")


def site(uid: str = "u1", status: dict[str, Any] | None = None) -> Any:
    made = Site(content={"spec": {"text": "t"}, "status": status or {}})
    made.metadata.name, made.metadata.namespace, made.metadata.uid = "web", "default", uid
    made.metadata.generation = 3
    return made


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def desk(server: Server) -> Desk:
    copies: Any = {ConfigMap: server, Site: server}
    client: Any = server
    return Desk("op", client, server, copies)


async def test_B40_a_child_gets_name_namespace_and_controller(server: Server, desk: Desk) -> None:
    stored = await Work(desk, site(), (ConfigMap,)).apply({"kind": "ConfigMap", "data": {"a": "b"}})
    owner = get_controller_of(stored)
    assert key_of(stored) == "default/web"
    assert owner is not None
    assert (owner.kind, owner.apiVersion, owner.uid) == ("Site", "example.com/v1", "u1")


async def test_B40_what_has_not_changed_costs_no_call(server: Server, desk: Desk) -> None:
    for text, calls in (("a", 1), ("a", 1), ("b", 2)):
        await Work(desk, site(), (ConfigMap,)).apply({"kind": "ConfigMap", "data": {"text": text}})
        assert len(server.calls) == calls
    server.objects["default/web"].metadata.resourceVersion = "99"
    await Work(desk, site(), (ConfigMap,)).apply({"kind": "ConfigMap", "data": {"text": "b"}})
    assert len(server.calls) == 3, "somebody else changed it"


async def test_B40_what_is_applied_no_more_goes(server: Server, desk: Desk) -> None:
    first = Work(desk, site(), (ConfigMap,))
    for name in ("one", "two"):
        await first.apply({"kind": "ConfigMap", "metadata": {"name": name}})
    await first.finish()
    second = Work(desk, site(), (ConfigMap,))
    await second.apply({"kind": "ConfigMap", "metadata": {"name": "one"}})
    await second.finish()
    assert server.calls[2:] == ["delete ConfigMap two"]
    assert set(server.objects) == {"default/one"}


async def test_B40_a_younger_child_of_the_name_is_not_deleted(server: Server, desk: Desk) -> None:
    await Work(desk, site(), (ConfigMap,)).apply({"kind": "ConfigMap"})
    server.fail = Conflict("another uid")
    await Work(desk, site(), (ConfigMap,)).finish()
    assert server.calls[-1] == "delete ConfigMap web"


async def test_B40_a_child_of_another_is_not_taken(server: Server, desk: Desk) -> None:
    await Work(desk, site("u1"), (ConfigMap,)).apply({"kind": "ConfigMap"})
    with pytest.raises(Conflict, match="controlled by Site web"):
        await Work(desk, site("u2"), (ConfigMap,)).apply({"kind": "ConfigMap"})


async def test_B40_a_kind_that_is_not_owned_is_a_fault_of_the_author(desk: Desk) -> None:
    with pytest.raises(Terminal, match="does not own objects of kind 'Secret'"):
        await Work(desk, site(), (ConfigMap,)).apply(Secret())


@pytest.mark.parametrize(
    ("told", "calls"),
    [
        pytest.param({}, 1, id="nothing yet"),
        pytest.param({"ready": 1, "observedGeneration": 2}, 1, id="of an older generation"),
        pytest.param({"ready": 1, "observedGeneration": 3}, 0, id="the same"),
    ],
)
async def test_B40_a_status_is_written_when_it_changed(
    server: Server, desk: Desk, told: dict[str, Any], calls: int
) -> None:
    work = Work(desk, site(status=told), (ConfigMap,))
    work.status(ready=1)
    await work.finish()
    assert len(server.calls) == calls


async def test_B40_a_status_of_what_has_gone_is_no_fault(server: Server, desk: Desk) -> None:
    server.fail = NotFound("gone")
    work = Work(desk, site(), (ConfigMap,))
    work.status(ready=1)
    await work.finish()
    assert server.calls == ["apply Site web status"]


def test_B40_events_are_told_of_the_object(server: Server, desk: Desk) -> None:
    Work(desk, site(), ()).event("Sold", "out", warning=True)
    assert server.calls == ["Warning Sold"]
