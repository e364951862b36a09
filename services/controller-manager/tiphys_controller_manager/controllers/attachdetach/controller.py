"""Has volumes attached to the nodes whose pods need them, and taken off when their kubelets have let go of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tiphys.api.core.v1 import node_pb2, persistent_volume_claim_pb2, persistent_volume_pb2, pod_pb2, reference_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys_apimachinery.errors import AlreadyExists, NotFound
from tiphys_apimachinery.meta import join_key, namespaced_name
from tiphys_apimachinery.persistent_volumes import ClaimView, VolumeView
from tiphys_client.controller import RequeueAfter
from tiphys_component.log import get_logger
from tiphys_controller_manager.controllers.attachdetach.plan import (
    AttachmentView,
    NodeState,
    Steps,
    attachment_name,
    plan,
)
from tiphys_controller_manager.frame import Context, Watch
from tiphys_controller_manager.nodes import is_ready
from tiphys_controller_manager.pods import CLAIM_INDEX, NODE_INDEX, PodView, claims_of
from tiphys_controller_manager.taints import OUT_OF_SERVICE
from tiphys_controller_manager.volumes import VOLUME_INDEX

Attachment = storage_pb2.VolumeAttachment
Claim = persistent_volume_claim_pb2.PersistentVolumeClaim
Volume = persistent_volume_pb2.PersistentVolume
# How long to wait for a view that lags; the events that end the wait come by themselves.
_LAG_S: Final = 1.0
# A node that holds on to a volume, or is lost, is looked at again even if nothing happens.
_LOOK_AGAIN_S: Final = 60.0


class AttachDetachController:
    """Keys are names of nodes."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self._clock = context.clock
        self._events = context.events
        self._pods = context.informers.of(pod_pb2.Pod)
        self._nodes = context.informers.of(node_pb2.Node)
        self._claims = context.informers.of(Claim)
        self._volumes = context.informers.of(Volume)
        self._drivers = context.informers.of(storage_pb2.CSIDriver)
        self._attachments = context.informers.of(Attachment)
        self._writes = context.expectations(Attachment)
        # By attachment, since when by the monotonic clock it has not been wanted.
        self._unwanted: dict[str, float] = {}
        # Pods and what they were last told, so that each hears of a fault once.
        self._told: dict[str, str] = {}
        self._log = get_logger("persistentvolume-attach-detach-controller")

    def watches(self) -> Iterable[Watch]:
        """Pods, nodes, attachments, and all that decides which volume a claim stands for."""
        return (
            Watch(pod_pb2.Pod, self._pod_keys),
            Watch(node_pb2.Node, self._node_keys),
            Watch(Attachment, self._attachment_keys),
            Watch(Claim, self._claim_keys),
            Watch(storage_pb2.CSIDriver, self._driver_keys),
            Watch(Volume, self._volume_keys),
        )

    def first_keys(self) -> Iterable[str]:
        """Every node, also such as are gone and have attachments left: these are seen as added themselves."""
        return self._nodes.keys()

    async def reconcile(self, key: str) -> RequeueAfter | None:
        """One step of one node. Raises errors of the API."""
        if not self._writes.are_met(key):
            return RequeueAfter(_LAG_S)
        wanted, users = self._wanted_on(key)
        attachments = self._attachments_on(key)
        if not wanted and not attachments and not self._reported(key):
            return None
        state = self._state_of(key)
        now = self._clock.monotonic()
        self._note_unwanted(attachments, wanted, now)
        steps = plan(
            state,
            wanted,
            attachments,
            elsewhere=self._elsewhere(wanted, key),
            unwanted_for_s={item.name: now - self._unwanted.get(item.name, now) for item in attachments},
            volumes=self._known_volumes(attachments),
        )
        # The node's status first: a kubelet must not begin to mount what is about to be taken off.
        await self._report(key, steps.attached)
        for item in steps.detach:
            await self._detach(key, item)
        for volume in steps.attach:
            await self._attach(key, volume)
        self._tell(steps, attachments, users)
        if not self._writes.are_met(key):
            return RequeueAfter(_LAG_S)
        if steps.again_in_s is not None:
            return RequeueAfter(min(steps.again_in_s, _LOOK_AGAIN_S))
        return None

    def _wanted_on(self, node: str) -> tuple[dict[str, VolumeView], dict[str, list[PodView]]]:
        """Volumes that the node's pods need attached, and the pods by volume."""
        wanted: dict[str, VolumeView] = {}
        users: dict[str, list[PodView]] = {}
        for _, pod in self._pods.store.projections_by_index(NODE_INDEX, node):
            if pod.is_finished:
                continue
            for name in pod.claims:
                claim: ClaimView | None = self._claims.projection(join_key(pod.namespace, name))
                volume = self._volumes.projection(claim.volume) if claim is not None and claim.is_bound else None
                if volume is not None and self._is_attachable(volume):
                    wanted[volume.name] = volume
                    users.setdefault(volume.name, []).append(pod)
        return wanted, users

    def _is_attachable(self, volume: VolumeView) -> bool:
        """A driver that says nothing of itself is attached, as Kubernetes does."""
        if not volume.driver:
            return False
        driver = self._drivers.get(volume.driver)
        return driver is None or not driver.spec.HasField("attachRequired") or driver.spec.attachRequired

    def _attachments_on(self, node: str) -> list[AttachmentView]:
        return [view for _, view in self._attachments.store.projections_by_index(NODE_INDEX, node) if view.volume]

    def _known_volumes(self, attachments: Iterable[AttachmentView]) -> dict[str, VolumeView]:
        found = ((item.volume, self._volumes.projection(item.volume)) for item in attachments)
        return {name: view for name, view in found if view is not None}

    def _elsewhere(self, wanted: Iterable[str], node: str) -> dict[str, str]:
        found = {}
        for name in wanted:
            for _, view in self._attachments.store.projections_by_index(VOLUME_INDEX, name):
                if view.node != node:
                    found[name] = view.node
        return found

    def _state_of(self, name: str) -> NodeState:
        node = self._nodes.get(name)
        if node is None:
            held = {
                f"kubernetes.io/csi/{view.driver}^{view.handle}"
                for item in self._attachments_on(name)
                if (view := self._volumes.projection(item.volume)) is not None
            }
            # Nobody says any more what it uses, so it may use all of it.
            return NodeState(name, held, is_well=False, is_off=False)
        is_off = any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints)
        return NodeState(name, set(node.status.volumesInUse), is_ready(node), is_off)

    def _note_unwanted(self, attachments: Iterable[AttachmentView], wanted: Iterable[str], now: float) -> None:
        for item in attachments:
            if item.volume in wanted:
                self._unwanted.pop(item.name, None)
            else:
                self._unwanted.setdefault(item.name, now)

    async def _attach(self, node: str, volume: VolumeView) -> None:
        made = Attachment()
        made.metadata.name = attachment_name(volume.handle, volume.driver, node)
        made.spec.attacher = volume.driver
        made.spec.nodeName = node
        made.spec.source.persistentVolumeName = volume.name
        try:
            self._writes.wrote(node, await self._client.create(made))
        except AlreadyExists:
            # One that is going: when it is gone, it is made again.
            return
        self._log.info("volume to be attached", volume=volume.name, node=node)

    async def _detach(self, node: str, item: AttachmentView) -> None:
        self._unwanted.pop(item.name, None)
        try:
            await self._client.delete(Attachment, item.name, preconditions_uid=item.uid)
        except NotFound:
            return
        self._log.info("volume to be detached", volume=item.volume, node=node)

    def _reported(self, name: str) -> tuple[str, ...]:
        node = self._nodes.get(name)
        return tuple(sorted(item.name for item in node.status.volumesAttached)) if node is not None else ()

    async def _report(self, name: str, attached: tuple[str, ...]) -> None:
        """Say in the node's status what it may mount."""
        if self._nodes.get(name) is None or self._reported(name) == attached:
            return
        volumes = [{"name": item, "devicePath": ""} for item in attached]
        patch = {"status": {"volumesAttached": volumes or None}}
        try:
            await self._client.patch(node_pb2.Node, name, "", patch, subresource="status")
        except NotFound:
            return

    def _tell(self, steps: Steps, attachments: Iterable[AttachmentView], users: dict[str, list[PodView]]) -> None:
        for name, other in steps.blocked.items():
            text = (
                f'Multi-Attach error for volume "{name}" Volume is already exclusively attached to one node and'
                f" can't be attached to another: {other} has it"
            )
            self._tell_pods(users[name], "Warning", "FailedAttachVolume", text)
        for item in attachments:
            if item.is_attached:
                text = f'AttachVolume.Attach succeeded for volume "{item.volume}" '
                self._tell_pods(users.get(item.volume, []), "Normal", "SuccessfulAttachVolume", text)
            elif item.error:
                text = f'AttachVolume.Attach failed for volume "{item.volume}" : {item.error}'
                self._tell_pods(users.get(item.volume, []), "Warning", "FailedAttachVolume", text)

    def _tell_pods(self, pods: Iterable[PodView], kind: Any, reason: str, text: str) -> None:
        for pod in pods:
            if self._told.get(pod.key) == f"{pod.uid} {text}":
                continue
            self._told[pod.key] = f"{pod.uid} {text}"
            about = reference_pb2.ObjectReference(
                kind="Pod", apiVersion="v1", namespace=pod.namespace, name=pod.name, uid=pod.uid
            )
            self._events.event(about, kind, reason, text)

    def _pod_keys(self, old: Any, new: Any) -> Iterable[str]:
        pod = new if new is not None else old
        if new is None:
            self._told.pop(namespaced_name(old), None)
        if not pod.spec.nodeName or not any(claims_of(pod)):
            return ()
        is_settled = old is not None and new is not None and old.spec.nodeName and old.status.phase == new.status.phase
        return () if is_settled else (pod.spec.nodeName,)

    def _node_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is not None and old is not None and _facts(old) == _facts(new):
            return ()
        return ((new if new is not None else old).metadata.name,)

    def _attachment_keys(self, old: Any, new: Any) -> Iterable[str]:
        item = new if new is not None else old
        keys = [item.spec.nodeName]
        if new is None:
            self._unwanted.pop(item.metadata.name, None)
            # Another node may have waited for it.
            volume: VolumeView | None = self._volumes.projection(item.spec.source.persistentVolumeName)
            keys += self._nodes_using(volume.claim) if volume is not None else []
        return dict.fromkeys(keys)

    def _claim_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is None or (old is not None and old.metadata.annotations == new.metadata.annotations):
            return ()
        return self._nodes_using(namespaced_name(new))

    def _volume_keys(self, old: Any, new: Any) -> Iterable[str]:
        if new is None or old is not None or not new.spec.HasField("claimRef"):
            return ()
        return self._nodes_using(join_key(new.spec.claimRef.namespace, new.spec.claimRef.name))

    def _driver_keys(self, old: Any, new: Any) -> Iterable[str]:
        return self._nodes.keys()

    def _nodes_using(self, claim: str) -> list[str]:
        pods = self._pods.store.projections_by_index(CLAIM_INDEX, claim)
        return list(dict.fromkeys(pod.node for _, pod in pods if pod.node))


def _facts(node: Any) -> tuple[Any, ...]:
    return (
        list(node.status.volumesInUse),
        [item.name for item in node.status.volumesAttached],
        is_ready(node),
        [taint.key for taint in node.spec.taints],
    )
