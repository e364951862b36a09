"""Makes volumes for claims: the driver's volume, then the PersistentVolume, which the binder binds."""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.core.v1 import node_pb2
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_apimachinery.errors import AlreadyExists, APIError, Conflict, NotFound
from tiphys_apimachinery.meta import is_being_deleted, join_key, namespaced_name
from tiphys_apimachinery.persistent_volumes import SELECTED_NODE, ClaimView, claim_view, class_view
from tiphys_client.client import Client
from tiphys_client.controller import Terminal
from tiphys_client.workqueue import RateLimitingQueue
from tiphys_component.log import get_logger
from tiphys_csi.companion.driver import ControllerRpc, Driver, DriverError, Setback
from tiphys_csi.companion.frame import Claim, Context, PersistentVolume, enqueue_own
from tiphys_csi.companion.provisioning import CLAIM_FINALIZER, ClaimStep, Here, plan_claim, volume_name
from tiphys_csi.companion.requests import BadClass, create_request, make_volume, read_parameters

_log = get_logger("csi.provisioner")


class Provisioner:
    """Keys are claims, as namespace/name."""

    name = "csi-provisioner"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client: Client = context.client

    def watch(self, queue: RateLimitingQueue[str]) -> None:
        """Claims; and what claims wait for: classes, volumes, nodes that go."""
        informers = self._context.informers
        enqueue_own(informers.claims, queue)

        def wake_all(_obj: object) -> None:
            for key in self.all_keys():
                queue.add(key)

        informers.classes.add_handler(on_add=wake_all)
        informers.csi_nodes.add_handler(on_delete=wake_all)
        informers.volumes.add_handler(on_add=lambda volume: queue.add(_claim_key(volume)))

    def all_keys(self) -> Iterable[str]:
        """Every claim that is not bound, or still has our mark."""
        for claim in self._context.informers.claims.list():
            view = claim_view(claim)
            if not view.is_bound or CLAIM_FINALIZER in view.finalizers:
                yield view.key

    async def reconcile(self, key: str) -> None:
        """Do the next step of a claim."""
        claim = self._context.informers.claims.get(key)
        if claim is None:
            return
        view = claim_view(claim)
        driver = self._context.drivers.get(view.provisioner)
        if driver is None or not driver.facts.can(ControllerRpc.CREATE_DELETE_VOLUME):
            return
        is_node_gone = await self._is_node_gone(view, driver)
        await self._do(self._plan(view, driver, is_node_gone=is_node_gone), claim, driver)

    async def _is_node_gone(self, view: ClaimView, driver: Driver) -> bool:
        """Whether the claim waits for the companion of a node that was removed."""
        node, is_marked = view.selected_node, CLAIM_FINALIZER in view.finalizers
        if not driver.facts.has_topology or node in ("", self._context.duty.node):
            return False
        if (view.is_bound and not is_marked) or self._context.informers.csi_nodes.get(node) is not None:
            return False
        # A node that has just come has no CSINode yet either: only the server knows.
        try:
            await self._client.get(node_pb2.Node, node)
        except NotFound:
            return True
        return False

    def _plan(self, view: ClaimView, driver: Driver, *, is_node_gone: bool) -> ClaimStep:
        informers, duty = self._context.informers, self._context.duty
        found = informers.classes.get(view.storage_class)
        here = Here(
            node=duty.node,
            has_topology=driver.facts.has_topology,
            leads=duty.is_for_node(driver, view.selected_node),
            segments=dict(driver.facts.segments),
        )
        has_volume = informers.volumes.get(volume_name(view.uid)) is not None
        storage_class = None if found is None else class_view(found)
        return plan_claim(view, storage_class, here, has_volume=has_volume, is_node_gone=is_node_gone)

    async def _do(self, step: ClaimStep, claim: Claim, driver: Driver) -> None:
        if step is ClaimStep.CHOOSE_NODE:
            await self._choose_node(claim)
        elif step is ClaimStep.PROVISION:
            try:
                await self._provision(claim, driver)
            except (Setback, APIError) as err:
                await self._tell_failure(claim, driver, err)
                raise
        elif step is ClaimStep.ABANDON:
            await self._abandon(claim, driver)
        elif step is ClaimStep.FINISH:
            await self._unmark(claim)
        elif step is ClaimStep.RESCHEDULE:
            await self._unmark(claim, reschedule=True)

    async def _choose_node(self, claim: Claim) -> None:
        """Have the volume made here, unless another companion was quicker."""
        metadata = claim.metadata
        change = {
            "metadata": {
                "resourceVersion": metadata.resourceVersion,
                "annotations": {SELECTED_NODE: self._context.duty.node},
            }
        }
        try:
            await self._client.patch(Claim, metadata.name, metadata.namespace, change)
        except (Conflict, NotFound):
            # Changed: whoever changed it, its next version is looked at.
            return

    async def _provision(self, claim: Claim, driver: Driver) -> None:
        storage_class = self._context.informers.classes.get(claim_view(claim).storage_class)
        if storage_class is None:
            return
        parameters = read_parameters(storage_class, claim)
        request = create_request(claim, storage_class, driver.facts, parameters)
        await self._fill(request, claim, driver)
        if not await self._mark(claim):
            return
        request.secrets.update(await self._context.secrets(parameters.secrets.get("provisioner")))
        made = await driver.create_volume(request)
        volume = make_volume(claim, storage_class, driver_name=driver.name, made=made, parameters=parameters)
        try:
            await self._client.create(volume)
        except AlreadyExists:
            # An earlier try came so far, or a companion that is slower than we are.
            return
        text = f"Successfully provisioned volume {volume.metadata.name}"
        self._context.events.event(claim, "Normal", "ProvisioningSucceeded", text)
        _log.info("volume provisioned", claim=namespaced_name(claim), volume=volume.metadata.name, driver=driver.name)

    async def _fill(self, request: csi_pb2.CreateVolumeRequest, claim: Claim, driver: Driver) -> None:
        """The content that the claim asks for: another claim's, of the same driver."""
        spec = claim.spec
        source = spec.dataSourceRef if spec.HasField("dataSourceRef") else spec.dataSource
        if not source.name:
            return
        if source.kind != "PersistentVolumeClaim" or source.apiGroup:
            raise BadClass(f"data source {source.kind} {source.name!r}: only another claim can be copied yet")
        if not driver.facts.can(ControllerRpc.CLONE_VOLUME):
            raise BadClass(f"driver {driver.name} can't copy volumes")
        other = self._context.informers.claims.get(join_key(claim.metadata.namespace, source.name))
        if other is None or not claim_view(other).is_bound:
            raise BadClass(f"claim {source.name!r}, the data source, is not bound")
        volume = self._context.informers.volumes.get(other.spec.volumeName)
        csi = None if volume is None else volume.spec.persistentVolumeSource.csi
        if csi is None or csi.driver != driver.name:
            raise BadClass(f"claim {source.name!r}, the data source, is not of driver {driver.name}")
        request.volume_content_source.volume.volume_id = csi.volumeHandle

    async def _mark(self, claim: Claim) -> bool:
        """Note on the claim that a volume may exist from now on; False where it is wanted no more."""
        if CLAIM_FINALIZER in claim.metadata.finalizers:
            return True
        metadata = claim.metadata
        change = {"metadata": {"uid": metadata.uid, "finalizers": [CLAIM_FINALIZER]}}
        try:
            marked = await self._client.patch(Claim, metadata.name, metadata.namespace, change, type="strategic")
        except (NotFound, Conflict):
            return False
        if is_being_deleted(marked) or marked.spec.volumeName:
            # Nothing was made yet; our own change wakes us to take the mark off.
            return False
        text = f'External provisioner is provisioning volume for claim "{namespaced_name(claim)}"'
        self._context.events.event(claim, "Normal", "Provisioning", text)
        return True

    async def _unmark(self, claim: Claim, *, reschedule: bool = False) -> None:
        metadata = claim.metadata
        if CLAIM_FINALIZER not in metadata.finalizers and not reschedule:
            return
        change: dict[str, object] = {"uid": metadata.uid, "$deleteFromPrimitiveList/finalizers": [CLAIM_FINALIZER]}
        if reschedule:
            change["annotations"] = {SELECTED_NODE: None}
        try:
            await self._client.patch(Claim, metadata.name, metadata.namespace, {"metadata": change}, type="strategic")
        except (NotFound, Conflict):
            return

    async def _abandon(self, claim: Claim, driver: Driver) -> None:
        """The claim is going and has no volume that anyone knows of: find the one there may be, and delete it."""
        storage_class = self._context.informers.classes.get(claim_view(claim).storage_class)
        if storage_class is None:
            raise Terminal(f"claim {namespaced_name(claim)}: its class is gone, and with it how its volume was made")
        parameters = read_parameters(storage_class, claim)
        secrets = await self._context.secrets(parameters.secrets.get("provisioner"))
        request = create_request(claim, storage_class, driver.facts, parameters)
        request.secrets.update(secrets)
        # Made earlier than we know, it may have a PersistentVolume that our copy has not seen.
        if await self._is_known(claim):
            return
        try:
            made = await driver.create_volume(request)
        except DriverError as err:
            if not err.is_final:
                raise
        else:
            await driver.delete_volume(made.volume_id, secrets)
        await self._unmark(claim)

    async def _is_known(self, claim: Claim) -> bool:
        try:
            await self._client.get(PersistentVolume, volume_name(claim.metadata.uid))
        except NotFound:
            return False
        return True

    async def _tell_failure(self, claim: Claim, driver: Driver, err: Exception) -> None:
        text = f'failed to provision volume with StorageClass "{claim_view(claim).storage_class}": {err}'
        self._context.events.event(claim, "Warning", "ProvisioningFailed", text)
        is_refused = isinstance(err, DriverError) and err.is_final
        if is_refused and driver.facts.has_topology and err.code.name == "RESOURCE_EXHAUSTED":  # type: ignore[attr-defined]
            # Another node may have room: the scheduler, or another companion, chooses again.
            await self._unmark(claim, reschedule=True)


def _claim_key(volume: PersistentVolume) -> str:
    return join_key(volume.spec.claimRef.namespace, volume.spec.claimRef.name)
