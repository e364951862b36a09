"""Writes to many pods in one call: a namespace's together, with an answer for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import APIError
from tiphys_client.client import Client
from tiphys_scheduler.pod_info import PodInfo

ItemT = TypeVar("ItemT")
MOST_IN_CALL = 256


def by_namespace(items: Iterable[ItemT], namespace: Callable[[ItemT], str]) -> list[tuple[str, list[ItemT]]]:
    """The items of each namespace, in pieces that go into one call."""
    found: dict[str, list[ItemT]] = {}
    for item in items:
        found.setdefault(namespace(item), []).append(item)
    return [
        (name, same[start : start + MOST_IN_CALL])
        for name, same in found.items()
        for start in range(0, len(same), MOST_IN_CALL)
    ]


async def patch_statuses(
    client: Client, namespace: str, patches: Sequence[tuple[PodInfo, Mapping[str, object]]]
) -> list[APIError | None]:
    """Merge into the status of each, if it still is that very pod; for each, in order, None or its error."""
    asked = [(pod.name, {"metadata": {"uid": pod.uid}, "status": status}) for pod, status in patches]
    call = client.batch_patch(Pod, namespace, asked, type="strategic", subresource="status")
    return await answers(call, len(asked))


async def answers(call: Awaitable[list[APIError | None]], count: int) -> list[APIError | None]:
    """What a batch answers; where the call itself failed, its error for each."""
    try:
        return await call
    except APIError as err:
        return [err] * count
