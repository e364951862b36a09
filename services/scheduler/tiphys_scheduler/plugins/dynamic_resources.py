"""DynamicResources: a pod goes where the devices that it claims are, and gets them before it is bound.

A pod waits outside the queue until its claims exist. For each node the claims that have no devices yet are met
together, by an exact search over what can be reached from there; claims that have devices say where these can be used.
Source: kubernetes pkg/scheduler/framework/plugins/dynamicresources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from tiphys.api.core.v1.scheduling_pb2 import NodeSelector
from tiphys.api.resource.v1.resource_pb2 import ResourceClaim
from tiphys_apimachinery.resource_claims import MOST_RESERVATIONS
from tiphys_client.informer import Informer
from tiphys_scheduler.columns import ALL_ROWS, Columns, Mask, Rows
from tiphys_scheduler.dynamic_resources.allocator import Allocation, NotAllocated, allocate
from tiphys_scheduler.dynamic_resources.claim_writer import ClaimWriter
from tiphys_scheduler.dynamic_resources.model import Pool, Reach
from tiphys_scheduler.dynamic_resources.results import allocation_result
from tiphys_scheduler.dynamic_resources.state import ClaimView, Devices, Promise, unallocated
from tiphys_scheduler.framework.interface import Event, PostFilterResult
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.node_affinity import match_term
from tiphys_scheduler.pod_info import PodInfo

NOT_ON_NODE = "resourceclaim not available on the node"


@dataclass(slots=True)
class _Judgement:
    """What is said of each row; reasons are those of rows that do not pass."""

    passed: Mask
    reasons: dict[int, str] = field(default_factory=dict)


class DynamicResources:
    """Everything about claims of devices, from the queue to the binding."""

    name = "DynamicResources"
    events = frozenset(
        {
            Event.NODE_ADDED,
            Event.NODE_LABELS,
            Event.RESOURCE_CLAIM,
            Event.RESOURCE_SLICE,
            Event.DEVICE_CLASS,
        }
    )

    def __init__(
        self,
        devices: Devices,
        columns: Columns,
        writer: ClaimWriter,
        claims: Informer[ResourceClaim, ClaimView],
        *,
        freed: Callable[[], None],
    ) -> None:
        """freed is called when devices that were taken in vain are free again."""
        self._devices, self._columns, self._writer, self._claims = devices, columns, writer, claims
        self._freed = freed
        # The last judgement and what it hangs on: points of one cycle ask for the same.
        self._judged: tuple[object, _Judgement] | None = None

    def concerns(self, pod: PodInfo) -> bool:
        """Whether the pod claims devices."""
        return bool(pod.needs.resource_claims)

    def pre_enqueue(self, pod: PodInfo) -> str:
        """Waits until all claims are there and are the pod's to use."""
        for name, key in pod.needs.resource_claims:
            if not key:
                return f'pod "{pod.key}": ResourceClaim for "{name}" not created yet'
            claim = self._devices.claims.get(key)
            what = f'resourceclaim "{key.partition("/")[2]}"'
            if claim is None:
                return f"{what} not found"
            if claim.is_deleting:
                return f"{what} is being deleted"
            if claim.pod_uid not in ("", pod.uid) or (not claim.pod_uid and name in pod.needs.generated_claims):
                return f"{what} was not created for the pod"
        return ""

    def pre_filter(self, pod: PodInfo) -> str:
        """What keeps the pod from every node: claims that are not ready, on their way to another, or of no class."""
        if not pod.needs.resource_claims:
            return ""
        why = self.pre_enqueue(pod)
        for _, key in pod.needs.resource_claims if not why else ():
            claim, name = self._devices.claims[key], key.partition("/")[2]
            promise = self._devices.promised(key)
            if promise is not None and promise.pod_uid != pod.uid:
                why = f'resourceclaim "{name}" is in the process of being allocated'
            elif pod.uid not in claim.reserved_for and len(claim.reserved_for) >= MOST_RESERVATIONS:
                why = f'resourceclaim "{name}" is in use'
            elif not claim.is_allocated:
                why = self._devices.missing_class(claim.wish)
            if why:
                break
        return why

    def is_needed(self, pod: PodInfo, nodes: Columns) -> bool:
        """Only for pods that claim devices."""
        return self.concerns(pod)

    def filter(self, pod: PodInfo, nodes: Columns, rows: Rows) -> Mask:
        """Nodes from which the devices of all claims can be used."""
        mask: Mask = self._judge(pod, nodes).passed[rows]
        return mask

    def reasons(self, pod: PodInfo, nodes: Columns, row: int) -> tuple[str, ...]:
        """The first that applies."""
        return (self._judge(pod, nodes).reasons.get(row, NOT_ON_NODE),)

    def post_filter(self, pod: PodInfo, error: FitError) -> PostFilterResult:
        """Gives devices back that keep the pod on a node where it does not fit, if nobody else uses them."""
        if self.name in error.plugins and not error.rejected_by:
            for _, key in pod.needs.resource_claims:
                claim = self._devices.claims.get(key)
                if claim is not None and claim.is_allocated and set(claim.reserved_for) <= {pod.uid}:
                    self._writer.release(key, pod.uid)
        return PostFilterResult()

    def reserve(self, pod: PodInfo, node: str) -> str:
        """Takes devices for the claims that have none."""
        row = self._columns.row_of.get(node)
        if row is None:
            return f'node "{node}" is gone'
        keys = [key for _, key in pod.needs.resource_claims]
        try:
            found = self._allocate(keys, self._columns, row)
        except NotAllocated as err:
            return str(err)
        for key, given in found.items():
            claim = self._claims.get(key)
            if claim is None or claim.metadata.uid != self._devices.claims[key].uid:
                return f'resourceclaim "{key.partition("/")[2]}" is gone'
            result = allocation_result(claim, given, node, self._devices.classes)
            own = tuple(item.device.id for item in given if not item.choice.is_admin)
            self._devices.promise(key, Promise(pod.uid, claim.metadata.uid, result, own))
        return ""

    def unreserve(self, pod: PodInfo, node: str) -> None:
        """Gives back what was taken, and has it taken out of claims where it is written already."""
        for _, key in pod.needs.resource_claims:
            if self._devices.forget(key, pod.uid):
                self._freed()
            claim = self._devices.claims.get(key)
            if claim is not None and pod.uid in claim.reserved_for:
                self._writer.release(key, pod.uid)

    async def pre_bind(self, pod: PodInfo, node: str) -> str:
        """Writes devices and reservations into the claims."""
        for _, key in pod.needs.resource_claims:
            why = await self._writer.reserve(pod, key)
            if why:
                return why
        return ""

    def _judge(self, pod: PodInfo, nodes: Columns) -> _Judgement:
        key = (pod.key, pod.needs.resource_claims, self._devices.version, nodes.epoch, len(nodes.changes), id(nodes))
        if self._judged is None or self._judged[0] != key:
            self._judged = (key, self._make(pod, nodes))
        return self._judged[1]

    def _make(self, pod: PodInfo, nodes: Columns) -> _Judgement:
        keys = [key for _, key in pod.needs.resource_claims]
        found = _Judgement(nodes.present.copy())
        for key in keys:
            claim = self._devices.claims.get(key)
            if claim is None:
                found.passed[:] = False
            elif claim.is_allocated and claim.nodes:
                found.passed &= _selected(claim.nodes, nodes)
        if not unallocated(self._devices, keys):
            return found
        # Rows from which the same devices can be reached get the same answer.
        answers: dict[tuple[int, ...], str] = {}
        offers = _Offers(self._devices.pools(), nodes)
        for row in np.flatnonzero(found.passed).tolist():
            mark = offers.mark(row)
            if mark not in answers:
                answers[mark] = self._why_not(keys, offers.pools(row))
            if answers[mark]:
                found.passed[row] = False
                found.reasons[row] = answers[mark]
        return found

    def _why_not(self, keys: Iterable[str], pools: list[Pool]) -> str:
        try:
            allocate(unallocated(self._devices, list(keys)), pools, self._devices.facts())
        except NotAllocated as err:
            return str(err)
        return ""

    def _allocate(self, keys: list[str], nodes: Columns, row: int) -> Allocation:
        wishes = unallocated(self._devices, keys)
        if not wishes:
            return {}
        pools = _Offers(self._devices.pools(), nodes).pools(row)
        return allocate(wishes, pools, self._devices.facts())


class _Offers:
    """Which part of each pool can be reached from a row."""

    def __init__(self, pools: list[Pool], nodes: Columns) -> None:
        self._nodes = nodes
        # Devices of one node by its name; the others with the mask of each way to say where they are.
        self._local: dict[str, list[tuple[int, Pool]]] = {}
        self._wide: list[tuple[int, Pool]] = []
        self._masks: dict[Reach, Mask] = {}
        for number, pool in enumerate(pools):
            homes = {device.reach.node for device in pool.devices}
            if "" not in homes and len(homes) == 1:
                self._local.setdefault(homes.pop(), []).append((number, pool))
                continue
            self._wide.append((number, pool))
            for device in pool.devices:
                if device.reach not in self._masks:
                    self._masks[device.reach] = _reached(device.reach, nodes)
        # One bit pattern a row: rows with the same pattern reach the same.
        self._patterns = np.array(list(self._masks.values()), np.bool_).reshape(len(self._masks), nodes.rows)

    def mark(self, row: int) -> tuple[int, ...]:
        """Equal for rows that reach the same devices."""
        own = row if self._nodes.names[row] in self._local else -1
        return (own, *np.flatnonzero(self._patterns[:, row]).tolist())

    def pools(self, row: int) -> list[Pool]:
        """The pools as the row reaches them, in their order."""
        found = list(self._local.get(self._nodes.names[row], ()))
        for number, pool in self._wide:
            devices = tuple(device for device in pool.devices if self._masks[device.reach][row])
            if devices:
                found.append((number, replace(pool, devices=devices)))
        return [pool for _, pool in sorted(found, key=lambda item: item[0])]


def _reached(reach: Reach, nodes: Columns) -> Mask:
    if reach.selector:
        return _selected(reach.selector, nodes)
    found = np.full(nodes.rows, reach.everywhere, np.bool_)
    row = nodes.row_of.get(reach.node)
    if row is not None:
        found[row] = True
    return found


def _selected(selector: bytes, nodes: Columns) -> Mask:
    found = np.zeros(nodes.rows, np.bool_)
    for term in NodeSelector.FromString(selector).nodeSelectorTerms:
        found |= match_term(term, nodes)
    mask: Mask = found[ALL_ROWS]
    return mask
