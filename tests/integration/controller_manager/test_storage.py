"""Claims, volumes and stateful sets on the real API server, with the rights that the bootstrap roles give."""

from __future__ import annotations

from time import monotonic
from typing import Any

from tests.integration.controller_manager.conftest import Cluster
from tests.integration.controller_manager.test_controllers import absent, listed
from tests.support.promptness import PROMPTLY_S
from tiphys.api.apps.v1.apps_pb2 import ControllerRevision, StatefulSet
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.service_account_pb2 import ServiceAccount
from tiphys.api.storage.v1.storage_pb2 import StorageClass, VolumeAttachment
from tiphys_apimachinery.errors import NotFound
from tiphys_apimachinery.persistent_volumes import STORAGE_PROVISIONER

DRIVER = "csi.example.com"


def claim(name: str = "data", **spec: str) -> PersistentVolumeClaim:
    made = PersistentVolumeClaim()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.accessModes.append("ReadWriteOnce")
    made.spec.resources.requests["storage"].string = "1Gi"
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def volume(name: str, claimed: PersistentVolumeClaim | None = None, *, policy: str = "Retain") -> PersistentVolume:
    made = PersistentVolume()
    made.metadata.name = name
    made.spec.accessModes.append("ReadWriteOnce")
    made.spec.capacity["storage"].string = "1Gi"
    made.spec.persistentVolumeReclaimPolicy = policy
    made.spec.storageClassName = "fast"
    made.spec.persistentVolumeSource.csi.driver = DRIVER
    made.spec.persistentVolumeSource.csi.volumeHandle = name
    if claimed is not None:
        made.spec.claimRef.namespace, made.spec.claimRef.name = "default", claimed.metadata.name
        made.spec.claimRef.uid = claimed.metadata.uid
        made.spec.claimRef.kind, made.spec.claimRef.apiVersion = "PersistentVolumeClaim", "v1"
    return made


async def default_class(cluster: Cluster) -> None:
    made = StorageClass(provisioner=DRIVER)
    made.metadata.name = "fast"
    made.metadata.annotations["storageclass.kubernetes.io/is-default-class"] = "true"
    await cluster.client.create(made)


async def phase_of(cluster: Cluster, cls: type[Any], name: str, namespace: str = "") -> str:
    try:
        return str((await cluster.client.get(cls, name, namespace)).status.phase)
    except NotFound:
        return ""


async def wait_phase(cluster: Cluster, cls: type[Any], name: str, phase: str, namespace: str = "") -> None:
    async def is_there() -> bool:
        return await phase_of(cluster, cls, name, namespace) == phase

    await cluster.until(is_there)


async def test_E25_a_claim_of_the_default_class_lives_from_provisioning_to_release(cluster: Cluster) -> None:
    await default_class(cluster)
    made = await cluster.client.create(claim())
    assert made.spec.storageClassName == "fast"
    assert list(made.metadata.finalizers) == ["kubernetes.io/pvc-protection"]

    async def asked() -> bool:
        found = await cluster.client.get(PersistentVolumeClaim, "data", "default")
        return found.metadata.annotations.get(STORAGE_PROVISIONER) == DRIVER

    await cluster.until(asked)
    began = monotonic()
    await cluster.client.create(volume("pvc-1", made))
    await wait_phase(cluster, PersistentVolumeClaim, "data", "Bound", "default")
    assert monotonic() - began < PROMPTLY_S
    await wait_phase(cluster, PersistentVolume, "pvc-1", "Bound")
    bound = await cluster.client.get(PersistentVolumeClaim, "data", "default")
    assert (bound.spec.volumeName, bound.status.capacity["storage"].string) == ("pvc-1", "1Gi")
    await cluster.client.delete(PersistentVolumeClaim, "data", "default")
    await cluster.until(lambda: absent(cluster, PersistentVolumeClaim, "data", "default"))
    await wait_phase(cluster, PersistentVolume, "pvc-1", "Released")
    await cluster.client.delete(PersistentVolume, "pvc-1")
    await cluster.until(lambda: absent(cluster, PersistentVolume, "pvc-1"))


async def test_a_volume_made_by_hand_is_found(cluster: Cluster) -> None:
    await cluster.client.create(volume("by-hand"))
    await wait_phase(cluster, PersistentVolume, "by-hand", "Available")
    await cluster.client.create(claim(storageClassName="fast"))
    await wait_phase(cluster, PersistentVolumeClaim, "data", "Bound", "default")
    await wait_phase(cluster, PersistentVolume, "by-hand", "Bound")


async def test_a_volume_is_attached_to_the_node_of_its_pod(cluster: Cluster) -> None:
    made = Node()
    made.metadata.name = "n1"
    await cluster.client.create(made)
    await cluster.client.create(volume("by-hand"))
    await cluster.client.create(claim(storageClassName="fast"))
    await wait_phase(cluster, PersistentVolumeClaim, "data", "Bound", "default")

    async def account() -> bool:
        return not await absent(cluster, ServiceAccount, "default", "default")

    await cluster.until(account)
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace = "p", "default"
    pod.spec.nodeName = "n1"
    pod.spec.containers.add(name="c", image="busybox")
    pod.spec.volumes.add(name="v").volumeSource.persistentVolumeClaim.claimName = "data"
    await cluster.client.create(pod)
    found = (await cluster.until(lambda: listed(cluster, VolumeAttachment, "")))[0]
    assert (found.spec.attacher, found.spec.source.persistentVolumeName) == (DRIVER, "by-hand")
    found.status.attached = True
    await cluster.client.update_status(found)

    async def may_mount() -> bool:
        status = (await cluster.client.get(Node, "n1")).status
        return [item.name for item in status.volumesAttached] == [f"kubernetes.io/csi/{DRIVER}^by-hand"]

    await cluster.until(may_mount)
    await cluster.client.delete(Pod, "p", "default", grace_period_s=0)

    async def is_off() -> bool:
        return not await listed(cluster, VolumeAttachment, "")

    await cluster.until(is_off)


def stateful_set(replicas: int = 2) -> StatefulSet:
    made = StatefulSet()
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.replicas = replicas
    made.spec.serviceName = "web"
    made.spec.selector.matchLabels["app"] = "web"
    made.spec.template.metadata.labels["app"] = "web"
    made.spec.template.spec.containers.add(name="c", image="busybox:1")
    template = made.spec.volumeClaimTemplates.add()
    template.metadata.name = "data"
    template.spec.CopyFrom(claim().spec)
    return made


async def test_a_stateful_set_rolls_and_keeps_its_claims(cluster: Cluster) -> None:
    await cluster.client.create(stateful_set())

    async def is_rolled_out(image: str) -> bool:
        await cluster.run_pods()
        pods = await listed(cluster, Pod)
        status = (await cluster.client.get(StatefulSet, "web", "default")).status
        images = {pod.spec.containers[0].image for pod in pods}
        done = status.readyReplicas == status.updatedReplicas == 2 and status.currentRevision == status.updateRevision
        return done and images == {image} and sorted(pod.metadata.name for pod in pods) == ["web-0", "web-1"]

    await cluster.until(lambda: is_rolled_out("busybox:1"))
    claims = {item.metadata.name: item.metadata.uid for item in await listed(cluster, PersistentVolumeClaim)}
    assert sorted(claims) == ["data-web-0", "data-web-1"]
    stored = await cluster.client.get(StatefulSet, "web", "default")
    stored.spec.template.spec.containers[0].image = "busybox:2"
    await cluster.client.update(stored)
    await cluster.until(lambda: is_rolled_out("busybox:2"))
    assert {item.metadata.name: item.metadata.uid for item in await listed(cluster, PersistentVolumeClaim)} == claims
    assert sorted(item.revision for item in await listed(cluster, ControllerRevision)) == [1, 2]
