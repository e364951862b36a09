"""The revisions of a template, of a StatefulSet or a DaemonSet: which stands for which, and what an old one said.

What a revision holds is a patch of its owner, as `kubectl rollout undo` sends it back.
Source: kubernetes pkg/controller/history, statefulset/stateful_set_utils.go and daemon/update.go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tiphys.api.apps.v1 import apps_pb2
from tiphys.api.core.v1 import pod_pb2
from tiphys_apimachinery.codec.json_codec import from_json, to_json
from tiphys_apimachinery.meta import new_controller_ref
from tiphys_apimachinery.names import safe_encode
from tiphys_controller_manager.controllers.deployment.revision import fingerprint
from tiphys_controller_manager.pods import seconds

API_VERSION: Final = "apps/v1"

Revision = apps_pb2.ControllerRevision
Owner = apps_pb2.StatefulSet | apps_pb2.DaemonSet


@dataclass(frozen=True, slots=True)
class Owners:
    """The kind of object that has revisions, and the label in which each revision has its hash."""

    kind: str
    hash_label: str


STATEFUL_SETS: Final = Owners("StatefulSet", "controller.kubernetes.io/hash")
DAEMON_SETS: Final = Owners("DaemonSet", "controller-revision-hash")


def in_order(revisions: Sequence[Revision]) -> list[Revision]:
    """Oldest first."""
    return sorted(
        revisions, key=lambda item: (item.revision, seconds(item.metadata.creationTimestamp), item.metadata.name)
    )


def make_revision(owners: Owners, owner: Owner, number: int, collisions: int) -> Revision:
    """A revision of the owner's template; collisions gives another name for the same template."""
    template = owner.spec.template
    code = _hash(template, collisions)
    made = Revision(revision=number)
    made.metadata.name = f"{owner.metadata.name}-{code}"
    made.metadata.namespace = owner.metadata.namespace
    made.metadata.labels.update(template.metadata.labels)
    made.metadata.labels[owners.hash_label] = code
    made.metadata.annotations.update(owner.metadata.annotations)
    made.metadata.ownerReferences.append(new_controller_ref(owner, API_VERSION, owners.kind))
    data = {"spec": {"template": {**to_json(template, with_type_meta=False), "$patch": "replace"}}}
    made.data.raw = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    return made


def template_of(revision: Revision) -> pod_pb2.PodTemplateSpec:
    """The template that a revision holds. Raises errors of the codec for data that is none."""
    template: dict[str, Any] = dict(orjson.loads(revision.data.raw)["spec"]["template"])
    template.pop("$patch", None)
    return from_json(pod_pb2.PodTemplateSpec, template)


def find_equal(owner: Owner, revisions: Sequence[Revision]) -> Revision | None:
    """The newest of the revisions, given in order, that has the owner's template."""
    wanted = fingerprint(owner.spec.template)
    return next((item for item in reversed(revisions) if fingerprint(template_of(item)) == wanted), None)


def same_template(one: Revision, other: Revision) -> bool:
    """Whether two revisions hold the same template."""
    return fingerprint(template_of(one)) == fingerprint(template_of(other))


def next_number(revisions: Sequence[Revision]) -> int:
    """One more than the newest."""
    return max((item.revision for item in revisions), default=0) + 1


def superfluous(owner: Owner, revisions: Sequence[Revision], live: Collection[str]) -> list[Revision]:
    """The revisions, given in order, beyond revisionHistoryLimit: the oldest of those that are not live."""
    dead = [item for item in revisions if item.metadata.name not in live]
    spec = owner.spec
    limit = spec.revisionHistoryLimit if spec.HasField("revisionHistoryLimit") else 10
    return dead[: max(len(dead) - limit, 0)]


def _hash(template: pod_pb2.PodTemplateSpec, collisions: int) -> str:
    digest = hashlib.blake2b(fingerprint(template), digest_size=4)
    if collisions:
        digest.update(str(collisions).encode())
    return safe_encode(str(int.from_bytes(digest.digest(), "big")))
