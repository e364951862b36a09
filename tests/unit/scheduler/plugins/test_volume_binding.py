"""VolumeBinding: which nodes take a pod's volumes, what is chosen for the claims, and the words of a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.scheduler.objects import node, pod_message
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.storage.v1.storage_pb2 import CSINode, StorageClass
from tiphys_apimachinery.persistent_volumes import (
    BIND_COMPLETED,
    SELECTED_NODE,
    claim_view,
    class_view,
    volume_view,
)
from tiphys_scheduler.cache import Cache
from tiphys_scheduler.columns import Columns
from tiphys_scheduler.framework.registry import profile
from tiphys_scheduler.framework.runtime import Framework, Placement
from tiphys_scheduler.framework.status import FitError
from tiphys_scheduler.plugins.volume_binding import VolumeBinding
from tiphys_scheduler.pod_info import PodInfo, pod_info
from tiphys_scheduler.volumes import Decisions, Volumes, drivers_view

ZONE = "topology.kubernetes.io/zone"
CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME = "node(s) didn't find available persistent volumes to bind"


def claim(name: str = "data", size: str = "1Gi", *, bound_to: str = "", **facts: Any) -> PersistentVolumeClaim:
    made = PersistentVolumeClaim()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", f"uid-{name}"
    made.spec.accessModes.extend(facts.get("modes", ["ReadWriteOnce"]))
    made.spec.resources.requests["storage"].string = size
    made.spec.storageClassName = facts.get("storage_class", "fast")
    if bound_to:
        made.spec.volumeName = bound_to
        made.metadata.annotations[BIND_COMPLETED] = "yes"
    if "selected" in facts:
        made.metadata.annotations[SELECTED_NODE] = facts["selected"]
    made.status.phase = facts.get("phase", "Bound" if bound_to else "Pending")
    if facts.get("is_deleting"):
        made.metadata.deletionTimestamp.seconds = 1
    return made


def volume(name: str = "vol", size: str = "1Gi", *, zone: str = "", claim_name: str = "") -> PersistentVolume:
    made = PersistentVolume()
    made.metadata.name = name
    made.spec.accessModes.append("ReadWriteOnce")
    made.spec.capacity["storage"].string = size
    made.spec.storageClassName = "fast"
    if zone:
        term = made.spec.nodeAffinity.required.nodeSelectorTerms.add()
        term.matchExpressions.add(key=ZONE, operator="In", values=[zone])
    if claim_name:
        made.spec.claimRef.namespace, made.spec.claimRef.name = "default", claim_name
        made.spec.claimRef.uid = f"uid-{claim_name}"
    made.status.phase = "Bound" if claim_name else "Available"
    return made


def storage_class(*, waits: bool = True, provisioner: str = "csi.example.com", zones: tuple[str, ...] = ()) -> Any:
    made = StorageClass(provisioner=provisioner)
    made.metadata.name = "fast"
    made.volumeBindingMode = "WaitForFirstConsumer" if waits else "Immediate"
    if zones:
        made.allowedTopologies.add().matchLabelExpressions.add(key=ZONE, values=zones)
    return made


def csi_node(name: str, driver: str = "csi.example.com", *, limit: int | None = None) -> CSINode:
    made = CSINode()
    made.metadata.name = name
    added = made.spec.drivers.add(name=driver, nodeID=name)
    if limit is not None:
        added.allocatable.count = limit
    return made


def user(*claims: str, name: str = "p") -> Pod:
    made = pod_message(name)
    for item in claims:
        made.spec.volumes.add(name=item).volumeSource.persistentVolumeClaim.claimName = item
    return made


class Room:
    """Nodes a and b in zones of their names, and storage."""

    def __init__(self, *objs: Any) -> None:
        self.volumes = Volumes()
        self.binding = VolumeBinding(self.volumes)
        self.cache = Cache(Columns(), self.volumes)
        for name in ("a", "b"):
            self.cache.set_node(node(name, labels={ZONE: name}))
        self.framework = Framework(profile(self.binding, self.volumes), self.cache.columns)
        for obj in objs:
            self.put(obj)

    def put(self, obj: Any) -> None:
        match obj:
            case PersistentVolumeClaim():
                self.volumes.set_claim(f"default/{obj.metadata.name}", claim_view(obj))
            case PersistentVolume():
                self.volumes.set_volume(obj.metadata.name, volume_view(obj))
            case StorageClass():
                self.volumes.classes[obj.metadata.name] = class_view(obj)
            case CSINode():
                self.volumes.set_drivers(obj.metadata.name, drivers_view(obj))

    def place(self, pod: PodInfo) -> tuple[str, Decisions]:
        found = self.framework.place(pod)
        assert isinstance(found, Placement), found.message
        return found.node, self.binding.decide(pod, self.cache.columns, found.row)

    def refusal(self, pod: PodInfo) -> FitError:
        found = self.framework.place(pod)
        assert isinstance(found, FitError)
        return found


@pytest.mark.parametrize(
    ("objs", "text"),
    [
        pytest.param([], 'persistentvolumeclaim "data" not found', id="no claim"),
        pytest.param(
            [storage_class(waits=False), claim()], "pod has unbound immediate PersistentVolumeClaims", id="immediate"
        ),
        pytest.param([claim()], "pod has unbound immediate PersistentVolumeClaims", id="no class"),
        pytest.param([claim(is_deleting=True)], 'persistentvolumeclaim "data" is being deleted', id="deleted"),
        pytest.param(
            [claim(bound_to="vol", phase="Lost")],
            'persistentvolumeclaim "data" bound to non-existent persistentvolume "vol"',
            id="lost",
        ),
    ],
)
def test_a_pod_whose_claim_is_not_ready_goes_nowhere_and_says_why(objs: list[Any], text: str) -> None:
    refused = Room(*objs).refusal(pod_info(user("data")))
    assert refused.message == f"0/2 nodes are available: {text}."
    assert refused.plugins == {"VolumeBinding"}


def test_an_ephemeral_claim_is_waited_for() -> None:
    pod = pod_message("p")
    pod.spec.volumes.add(name="scratch").volumeSource.ephemeral.volumeClaimTemplate.spec.storageClassName = "fast"
    text = 'waiting for ephemeral volume controller to create the persistentvolumeclaim "p-scratch"'
    assert Room().refusal(pod_info(pod)).rejection == text


@pytest.mark.parametrize("zone", ["a", "b"])
def test_a_pod_goes_where_its_bound_volume_is(zone: str) -> None:
    room = Room(claim(bound_to="vol"), volume(zone=zone, claim_name="data"))
    assert room.place(pod_info(user("data"))) == (zone, Decisions(zone))


def test_volumes_in_two_places_leave_no_node() -> None:
    room = Room(
        claim("one", bound_to="v1"),
        volume("v1", zone="a", claim_name="one"),
        claim("two", bound_to="v2"),
        volume("v2", zone="b", claim_name="two"),
    )
    assert room.refusal(pod_info(user("one", "two"))).message == f"0/2 nodes are available: 2 {CONFLICT}."


def test_a_bound_volume_that_is_gone_leaves_no_node() -> None:
    text = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
    refused = Room(claim(bound_to="vol")).refusal(pod_info(user("data")))
    assert refused.message == f"0/2 nodes are available: 2 {text}."


def test_a_volume_that_is_there_goes_before_one_to_be_made() -> None:
    room = Room(storage_class(), claim(), volume("big", "9Gi", zone="b"), volume("fit", "2Gi", zone="b"))
    node_name, decisions = room.place(pod_info(user("data", name="p")))
    # Node a is as good a place: there a volume is made.
    assert (node_name, decisions.provisions) == ("a", ("default/data",))
    pod = user("data")
    pod.spec.nodeSelector[ZONE] = "b"
    assert room.place(pod_info(pod))[1].reservations == (("default/data", "fit"),)


def test_without_a_provisioner_only_nodes_with_a_volume_will_do() -> None:
    room = Room(storage_class(provisioner="kubernetes.io/no-provisioner"), claim(), volume(zone="b"))
    assert room.place(pod_info(user("data"))) == (
        "b",
        Decisions("b", ("default/data",), reservations=(("default/data", "vol"),)),
    )


def test_two_claims_of_a_pod_take_two_volumes() -> None:
    room = Room(
        storage_class(provisioner="kubernetes.io/no-provisioner"),
        claim("large", "3Gi"),
        claim("small", "1Gi"),
        volume("v3", "3Gi"),
        volume("v1", "1Gi"),
    )
    _, decisions = room.place(pod_info(user("large", "small")))
    assert dict(decisions.reservations) == {"default/large": "v3", "default/small": "v1"}
    room.put(claim("more"))
    assert room.refusal(pod_info(user("large", "small", "more"))).message == f"0/2 nodes are available: 2 {NO_VOLUME}."


def test_a_promised_volume_is_given_to_no_other_claim() -> None:
    room = Room(storage_class(provisioner="kubernetes.io/no-provisioner"), claim("one"), claim("two"), volume())
    _, decisions = room.place(pod_info(user("one")))
    room.volumes.assume(decisions)
    assert room.refusal(pod_info(user("two", name="q"))).plugins == {"VolumeBinding"}
    room.volumes.forget(decisions)
    assert room.place(pod_info(user("two", name="q")))[1].reservations == (("default/two", "vol"),)


def test_volumes_are_made_where_the_class_allows_it() -> None:
    room = Room(storage_class(zones=("b",)), claim())
    assert room.place(pod_info(user("data"))) == ("b", Decisions("b", ("default/data",), provisions=("default/data",)))


def test_volumes_are_made_where_the_driver_runs() -> None:
    room = Room(storage_class(), claim(), csi_node("b"))
    assert room.place(pod_info(user("data")))[0] == "b"


def test_a_driver_that_runs_on_no_node_works_from_afar() -> None:
    room = Room(storage_class(), claim(), csi_node("b", "other.example.com"))
    assert room.place(pod_info(user("data")))[0] == "a"


@pytest.mark.parametrize("is_promised", [True, False])
def test_a_claim_whose_volume_is_being_made_holds_its_pods_to_that_node(is_promised: bool) -> None:
    room = Room(storage_class(), claim() if is_promised else claim(selected="b"))
    if is_promised:
        room.volumes.assume(Decisions("b", ("default/data",), provisions=("default/data",)))
    assert room.place(pod_info(user("data")))[0] == "b"


def test_a_volume_for_one_pod_only_keeps_others_away() -> None:
    room = Room(claim(bound_to="vol", modes=["ReadWriteOncePod"]), volume(claim_name="data"))
    room.cache.assume(pod_info(user("data", name="first")), "a")
    text = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    assert room.refusal(pod_info(user("data"))).message == f"0/2 nodes are available: 2 {text}."
    room.cache.remove_pod("default/first")
    assert room.place(pod_info(user("data")))[0] == "a"


def test_a_node_that_is_gone_holds_no_claim() -> None:
    room = Room(storage_class(), claim(selected="gone"))
    assert room.place(pod_info(user("data"))) == ("a", Decisions("a", ("default/data",), provisions=("default/data",)))


def test_a_node_takes_no_more_volumes_than_its_driver_says() -> None:
    room = Room(storage_class(), csi_node("a", limit=1), csi_node("b", limit=1))
    for name in ("one", "two", "three"):
        room.put(claim(name))
    room.cache.assume(pod_info(user("one", name="first")), "a")
    # The same volume again is no further one.
    again = user("one", name="again")
    again.spec.nodeSelector[ZONE] = "a"
    assert room.place(pod_info(again))[0] == "a"
    assert room.place(pod_info(user("two", name="second")))[0] == "b"
    text = "node(s) exceed max volume count"
    assert room.refusal(pod_info(user("two", "three"))).message == f"0/2 nodes are available: 2 {text}."
    room.cache.remove_pod("default/first")
    room.cache.assume(pod_info(user("two", name="second")), "b")
    assert room.place(pod_info(user("three")))[0] == "a"
