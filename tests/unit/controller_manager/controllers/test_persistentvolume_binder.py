"""Claims and volumes: who gets which, what both statuses say, and that no crash or race gives one volume twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller_manager.harness import House, house
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.storage.v1.storage_pb2 import StorageClass
from tiphys_apimachinery.persistent_volumes import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    SELECTED_NODE,
    STORAGE_PROVISIONER,
    ClassView,
    VolumeView,
    claim_view,
    volume_view,
)
from tiphys_controller_manager.controllers.persistentvolume_binder.controller import name_volume, release, reserve
from tiphys_controller_manager.controllers.persistentvolume_binder.plan import (
    Bind,
    ClaimStep,
    Lose,
    Provision,
    SetPhase,
    Unbind,
    VolumeStep,
    Wait,
    plan_claim,
    plan_volume,
)

BINDER = "persistentvolume-binder-controller"
IMMEDIATE = ClassView("fast", "csi.example.com", waits_for_consumer=False, topologies=())
WAITING = ClassView("fast", "csi.example.com", waits_for_consumer=True, topologies=())
BY_HAND = ClassView("fast", "kubernetes.io/no-provisioner", waits_for_consumer=False, topologies=())


def claim(name: str = "data", size: str = "1Gi", *, storage_class: str = "fast", **spec: Any) -> PersistentVolumeClaim:
    made = PersistentVolumeClaim()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = name, "default", f"uid-{name}"
    made.spec.accessModes.extend(spec.pop("modes", ["ReadWriteOnce"]))
    made.spec.resources.requests["storage"].string = size
    made.spec.storageClassName = storage_class
    made.metadata.annotations.update(spec.pop("annotations", {}))
    made.spec.selector.matchLabels.update(spec.pop("selector", {}))
    if not made.spec.selector.matchLabels:
        made.spec.ClearField("selector")
    made.status.phase = spec.pop("phase", "Pending")
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def volume(name: str = "vol", size: str = "1Gi", *, storage_class: str = "fast", **spec: Any) -> PersistentVolume:
    made = PersistentVolume()
    made.metadata.name = name
    made.metadata.labels.update(spec.pop("labels", {}))
    made.metadata.annotations.update(spec.pop("annotations", {}))
    made.spec.accessModes.extend(spec.pop("modes", ["ReadWriteOnce"]))
    made.spec.capacity["storage"].string = size
    made.spec.storageClassName = storage_class
    made.spec.persistentVolumeReclaimPolicy = spec.pop("policy", "Retain")
    made.spec.persistentVolumeSource.hostPath.path = f"/data/{name}"
    for_claim = spec.pop("claim", "")
    if for_claim:
        made.spec.claimRef.namespace, made.spec.claimRef.name = "default", for_claim
        made.spec.claimRef.uid = spec.pop("uid", f"uid-{for_claim}")
    made.status.phase = spec.pop("phase", "Available")
    for key, value in spec.items():
        setattr(made.spec, key, value)
    return made


def step_of(obj: PersistentVolumeClaim, *volumes: PersistentVolume, storage_class: ClassView | None = IMMEDIATE) -> Any:
    views = {item.metadata.name: volume_view(item) for item in volumes}
    view = claim_view(obj)
    return plan_claim(view, named=views.get(view.volume), volumes=views.values(), storage_class=storage_class)


@pytest.mark.parametrize(
    ("wanted", "there", "taken"),
    [
        pytest.param({}, [volume("big", "5Gi"), volume("fit", "2Gi"), volume("small", "1Mi")], "fit", id="smallest"),
        pytest.param({}, [volume("b"), volume("a")], "a", id="first by name of equal ones"),
        pytest.param({}, [volume(storage_class="slow")], None, id="another class"),
        pytest.param({"storage_class": ""}, [volume(storage_class="")], "vol", id="no class on both sides"),
        pytest.param({}, [volume(modes=["ReadOnlyMany"])], None, id="a mode it lacks"),
        pytest.param({}, [volume(modes=["ReadOnlyMany", "ReadWriteOnce"])], "vol", id="more modes than asked for"),
        pytest.param({"volumeMode": "Block"}, [volume()], None, id="another volume mode"),
        pytest.param({"selector": {"disk": "ssd"}}, [volume(labels={"disk": "hdd"})], None, id="selector refuses"),
        pytest.param({"selector": {"disk": "ssd"}}, [volume(labels={"disk": "ssd"})], "vol", id="selector accepts"),
        pytest.param({}, [volume(phase="Released")], None, id="released"),
        pytest.param({}, [volume(phase="Pending")], None, id="not looked at yet"),
        pytest.param({}, [volume(claim="other")], None, id="of another claim"),
        pytest.param({}, [volume("a"), volume("z", "9Gi", claim="data")], "z", id="the one reserved for it by uid"),
        pytest.param({}, [volume("a"), volume("z", "9Gi", claim="data", uid="")], "z", id="reserved by name"),
        pytest.param({}, [volume("z", claim="data", uid="old")], None, id="reserved for an older claim of its name"),
        pytest.param({}, [volume("z", "1Mi", claim="data", uid="")], None, id="reserved but too small"),
    ],
)
def test_a_claim_takes_the_volume_that_fits(
    wanted: dict[str, Any], there: list[PersistentVolume], taken: str | None
) -> None:
    found = step_of(claim(**wanted), *there)
    if taken is None:
        assert not isinstance(found, Bind)
    else:
        assert found == Bind(taken)


@pytest.mark.parametrize(
    ("obj", "storage_class", "reason", "text"),
    [
        pytest.param(
            claim(storage_class=""),
            None,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
            id="no class",
        ),
        pytest.param(
            claim(), None, "ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found', id="class missing"
        ),
        pytest.param(
            claim(),
            BY_HAND,
            "ProvisioningFailed",
            "no volume plugin matched name: kubernetes.io/no-provisioner",
            id="volumes made by hand",
        ),
        pytest.param(
            claim(),
            WAITING,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
            id="waits for a pod",
        ),
    ],
)
def test_a_claim_that_must_wait_says_for_what(
    obj: PersistentVolumeClaim, storage_class: ClassView | None, reason: str, text: str
) -> None:
    found = step_of(obj, storage_class=storage_class)
    assert isinstance(found, Wait)
    assert found.note is not None
    assert (found.note.reason, found.note.message) == (reason, text)


def test_without_a_volume_the_provisioner_is_asked() -> None:
    assert step_of(claim()) == Provision("csi.example.com")


def test_a_claim_that_waits_for_a_consumer_takes_no_volume_by_itself() -> None:
    assert isinstance(step_of(claim(), volume(), storage_class=WAITING), Wait)


def test_a_claim_that_waits_takes_what_the_scheduler_reserved() -> None:
    assert step_of(claim(), volume(claim="data"), storage_class=WAITING) == Bind("vol")


def test_a_node_chosen_for_the_claim_has_a_volume_made() -> None:
    chosen = claim(annotations={SELECTED_NODE: "n1"})
    assert step_of(chosen, volume(), storage_class=WAITING) == Provision("csi.example.com")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        pytest.param(volume(storage_class="fast"), Bind("vol"), id="free"),
        pytest.param(volume(claim="data", uid=""), Bind("vol"), id="reserved for it"),
        pytest.param(volume(claim="other"), "FailedBinding", id="bound to another"),
        pytest.param(volume(size="1Mi"), "VolumeMismatch", id="too small"),
        pytest.param(volume("elsewhere"), "", id="not there yet"),
    ],
)
def test_a_claim_may_name_its_volume(there: PersistentVolume, expected: Bind | str) -> None:
    found = step_of(claim(volumeName="vol"), there)
    if isinstance(expected, Bind):
        assert found == expected
    else:
        assert isinstance(found, Wait)
        assert (found.note.reason if found.note else "") == expected


BOUND: dict[str, Any] = {"annotations": {BIND_COMPLETED: "yes"}, "phase": "Bound"}


@pytest.mark.parametrize(
    ("obj", "there", "reason"),
    [
        pytest.param(claim(volumeName="vol", **BOUND), volume("other"), "ClaimLost", id="volume gone"),
        pytest.param(claim(**BOUND), volume(), "ClaimLost", id="name taken away"),
        pytest.param(claim(volumeName="vol", **BOUND), volume(claim="other"), "ClaimMisbound", id="volume of another"),
    ],
)
def test_a_bound_claim_whose_volume_is_gone_is_lost(
    obj: PersistentVolumeClaim, there: PersistentVolume, reason: str
) -> None:
    found = step_of(obj, there)
    assert isinstance(found, Lose)
    assert found.note.reason == reason


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
@pytest.mark.parametrize(
    ("there", "other", "expected"),
    [
        pytest.param(volume(phase="Pending"), None, SetPhase("Available"), id="new"),
        pytest.param(volume(), None, None, id="free already"),
        pytest.param(volume(claim="data", uid=""), None, None, id="reserved without uid"),
        pytest.param(volume(claim="data"), claim(), None, id="half bound"),
        pytest.param(volume(claim="data"), claim(volumeName="vol"), SetPhase("Bound"), id="bound"),
        pytest.param(
            volume(claim="data", phase="Bound", annotations={PROVISIONED_BY: "csi"}),
            None,
            SetPhase("Released"),
            id="claim gone",
        ),
        pytest.param(
            volume(claim="data", phase="Released", annotations={PROVISIONED_BY: "csi"}), None, None, id="released once"
        ),
        pytest.param(
            volume(claim="data", uid="old", phase="Bound", annotations={PROVISIONED_BY: "csi"}),
            claim(),
            SetPhase("Released"),
            id="another claim of that name",
        ),
        pytest.param(volume(claim="data", phase="Failed"), None, None, id="failed stays"),
        pytest.param(
            volume(claim="data", annotations={BOUND_BY_CONTROLLER: "yes"}),
            claim(volumeName="other"),
            Unbind(keep_reservation=False),
            id="its claim took another",
        ),
        pytest.param(
            volume(claim="data"), claim(volumeName="other"), Unbind(keep_reservation=True), id="reserved by a user"
        ),
    ],
)
def test_a_volume_shows_what_became_of_its_claim(
    there: PersistentVolume, other: PersistentVolumeClaim | None, expected: VolumeStep, policy: str
) -> None:
    there.spec.persistentVolumeReclaimPolicy = policy
    assert plan_volume(volume_view(there), claim_view(other) if other is not None else None) == expected


def test_a_provisioned_volume_that_came_too_late_is_given_up() -> None:
    late = volume(claim="data", policy="Delete", annotations={PROVISIONED_BY: "csi"})
    assert plan_volume(volume_view(late), claim_view(claim(volumeName="other"))) == SetPhase("Released")


@pytest.mark.parametrize("policy", ["Recycle", "Delete"])
def test_a_volume_that_nothing_can_reclaim_fails_and_says_why(policy: str) -> None:
    found = plan_volume(volume_view(volume(claim="data", policy=policy, phase="Bound")), None)
    assert isinstance(found, SetPhase)
    assert found.phase == "Failed"
    assert found.note is not None


class World:
    """A server without watches: each write succeeds only on the version that its writer saw."""

    def __init__(self, sizes: list[int]) -> None:
        self.volumes = {f"v{i}": volume(f"v{i}", f"{size}Gi") for i, size in enumerate(sizes)}
        self.claims: dict[str, PersistentVolumeClaim] = {}
        self.versions: dict[str, int] = {}

    def view(self, known: dict[str, int]) -> list[VolumeView]:
        """The volumes; those in known as older writers saw them, free."""
        shown = []
        for name, item in self.volumes.items():
            copy = PersistentVolume()
            copy.CopyFrom(item)
            if name in known:
                copy.spec.ClearField("claimRef")
            shown.append(volume_view(copy))
        return shown

    def reserve(self, name: str, obj: PersistentVolumeClaim, seen: int) -> bool:
        if self.versions.get(name, 0) != seen:
            return False
        if reserve(self.volumes[name], obj):
            self.versions[name] = self.versions.get(name, 0) + 1
        return True


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    turns=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=25),
)
def test_no_two_claims_ever_get_one_volume(sizes: list[int], turns: list[tuple[int, bool, bool]]) -> None:
    """Binders that stop half way (crash) or act on an old view (is_stale), in any order."""
    world = World(sizes)
    claims = [claim(f"c{i}", f"{i % 3 + 1}Gi") for i in range(4)]
    for who, is_stale, crashes in turns:
        obj = claims[who]
        before = dict.fromkeys(world.volumes, 0) if is_stale else {}
        shown = world.view(before)
        view = claim_view(obj)
        named = next((item for item in shown if item.name == view.volume), None)
        step: ClaimStep = plan_claim(view, named=named, volumes=shown, storage_class=None)
        if not isinstance(step, Bind):
            continue
        seen = 0 if is_stale else world.versions.get(step.volume, 0)
        if world.reserve(step.volume, obj, seen) and not crashes:
            name_volume(obj, step.volume)
    taken = [item.spec.volumeName for item in claims if item.spec.volumeName]
    assert len(taken) == len(set(taken))
    for item in claims:
        if item.spec.volumeName:
            assert world.volumes[item.spec.volumeName].spec.claimRef.uid == item.metadata.uid


def test_letting_go_keeps_what_a_user_wrote() -> None:
    by_user, by_us = volume(claim="data"), volume(claim="data", annotations={BOUND_BY_CONTROLLER: "yes"})
    release(by_user, keep_reservation=True)
    release(by_us, keep_reservation=False)
    assert (by_user.spec.claimRef.name, by_user.spec.claimRef.uid) == ("data", "")
    assert not by_us.spec.HasField("claimRef")
    assert BOUND_BY_CONTROLLER not in by_us.metadata.annotations


def made_class(*, waits: bool = False) -> StorageClass:
    made = StorageClass(provisioner="csi.example.com")
    made.metadata.name = "fast"
    made.volumeBindingMode = "WaitForFirstConsumer" if waits else "Immediate"
    return made


def stored(built: House, cls: type[Any], name: str, namespace: str = "") -> Any:
    return built.client.stored(cls, name, namespace)


async def test_claim_and_volume_find_each_other() -> None:
    async with house(BINDER) as built:
        await built.client.create(volume(size="2Gi", phase="Pending"))
        await built.client.create(claim())
        await built.settle()
        bound, taken = stored(built, PersistentVolumeClaim, "data", "default"), stored(built, PersistentVolume, "vol")
        assert (bound.spec.volumeName, bound.status.phase, taken.status.phase) == ("vol", "Bound", "Bound")
        assert bound.status.capacity["storage"].string == "2Gi"
        assert list(bound.status.accessModes) == ["ReadWriteOnce"]
        assert bound.metadata.annotations[BIND_COMPLETED] == "yes"
        assert bound.metadata.annotations[BOUND_BY_CONTROLLER] == "yes"
        assert taken.spec.claimRef.uid == bound.metadata.uid
        assert taken.metadata.annotations[BOUND_BY_CONTROLLER] == "yes"


async def test_a_claim_is_bound_to_a_volume_that_comes_later() -> None:
    async with house(BINDER) as built:
        await built.client.create(claim())
        await built.settle()
        await built.client.create(volume(phase="Pending"))
        await built.settle()
        assert stored(built, PersistentVolumeClaim, "data", "default").status.phase == "Bound"


async def test_a_claim_without_volume_is_handed_to_the_provisioner() -> None:
    async with house(BINDER) as built:
        await built.client.create(made_class())
        made = await built.client.create(claim())
        await built.settle()
        asked = stored(built, PersistentVolumeClaim, "data", "default")
        assert asked.metadata.annotations[STORAGE_PROVISIONER] == "csi.example.com"
        assert "ExternalProvisioning" in built.events.reasons()
        new = volume("pvc-1", claim="data", uid=made.metadata.uid, phase="Pending")
        await built.client.create(new)
        await built.settle()
        assert stored(built, PersistentVolumeClaim, "data", "default").status.phase == "Bound"
        assert stored(built, PersistentVolume, "pvc-1").status.phase == "Bound"
        assert BOUND_BY_CONTROLLER not in stored(built, PersistentVolume, "pvc-1").metadata.annotations


async def test_a_class_that_comes_later_is_noticed() -> None:
    async with house(BINDER) as built:
        await built.client.create(claim())
        await built.settle()
        assert "ProvisioningFailed" in built.events.reasons()
        await built.client.create(made_class())
        await built.settle()
        asked = stored(built, PersistentVolumeClaim, "data", "default")
        assert asked.metadata.annotations[STORAGE_PROVISIONER] == "csi.example.com"


@pytest.mark.parametrize(("names_none", "given"), [(True, "fast"), (False, "")], ids=["says nothing", "wants none"])
async def test_a_default_class_that_comes_later_is_given_to_claims_that_name_none(names_none: bool, given: str) -> None:
    made = claim(storage_class="")
    if names_none:
        made.spec.ClearField("storageClassName")
    async with house(BINDER) as built:
        await built.client.create(made)
        await built.settle()
        default = made_class()
        default.metadata.annotations["storageclass.kubernetes.io/is-default-class"] = "true"
        await built.client.create(default)
        await built.settle()
        found = stored(built, PersistentVolumeClaim, "data", "default")
        assert found.spec.storageClassName == given
        assert (STORAGE_PROVISIONER in found.metadata.annotations) == bool(given)


@pytest.mark.parametrize("written", [0, 1, 2])
async def test_binding_goes_on_after_a_crash_between_any_two_writes(written: int) -> None:
    async with house(BINDER) as built:
        there = await built.client.create(volume("a", phase="Pending"))
        await built.client.create(volume("b", phase="Pending"))
        made = claim()
        made.spec.selector.matchLabels["none"] = "yet"
        made = await built.client.create(made)
        await built.settle()
        there = await built.client.get(PersistentVolume, "b")
        made.spec.ClearField("selector")
        if written > 0:
            reserve(there, made)
            await built.client.update(there)
        if written > 1:
            name_volume(made, "b")
        await built.client.update(made)
        await built.settle()
        expected = "a" if written == 0 else "b"
        bound = stored(built, PersistentVolumeClaim, "data", "default")
        assert (bound.spec.volumeName, bound.status.phase) == (expected, "Bound")
        phases = {item.metadata.name: item.status.phase for item in await built.all(PersistentVolume)}
        assert phases == {"a": "Available", "b": "Available", expected: "Bound"}


async def test_a_deleted_claim_leaves_its_volume_released() -> None:
    async with house(BINDER) as built:
        await built.client.create(volume(phase="Pending"))
        await built.client.create(claim())
        await built.settle()
        await built.client.delete(PersistentVolumeClaim, "data", "default")
        await built.settle()
        assert stored(built, PersistentVolume, "vol").status.phase == "Released"


async def test_a_claim_whose_volume_is_deleted_is_lost() -> None:
    async with house(BINDER) as built:
        await built.client.create(volume(phase="Pending"))
        await built.client.create(claim())
        await built.settle()
        await built.client.delete(PersistentVolume, "vol")
        await built.settle()
        assert stored(built, PersistentVolumeClaim, "data", "default").status.phase == "Lost"
        assert "ClaimLost" in built.events.reasons()


async def test_of_two_claims_for_one_volume_one_waits() -> None:
    async with house(BINDER) as built:
        await built.client.create(claim("one"))
        await built.client.create(claim("two"))
        await built.settle()
        await built.client.create(volume(phase="Pending"))
        await built.run_for(2)
        phases = [item.status.phase for item in await built.all(PersistentVolumeClaim, "default")]
        assert phases.count("Bound") == 1
