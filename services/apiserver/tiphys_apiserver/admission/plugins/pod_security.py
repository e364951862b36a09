"""Holds pods to the Pod Security Standards, by the labels of their namespace: refuses, or only warns."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod as PodObject
from tiphys_apimachinery.errors import Invalid, NotFound
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.admission.pod_security.finding import Pod
from tiphys_apiserver.admission.pod_security.policy import (
    ENFORCE,
    FREE,
    PREFIX,
    WARN,
    Level,
    findings,
    read_labels,
    told,
)
from tiphys_apiserver.admission.refusal import refuse
from tiphys_apiserver.registry.objects import ObjectAccess

# Workloads whose templates are looked at for warnings only: their pods are what is refused.
_TEMPLATES = frozenset(
    {
        ("", "podtemplates"), ("", "replicationcontrollers"), ("apps", "deployments"), ("apps", "replicasets"),
        ("apps", "statefulsets"), ("apps", "daemonsets"), ("batch", "jobs"), ("batch", "cronjobs"),
    }
)  # fmt: skip
_WRITES = (Operation.CREATE, Operation.UPDATE)
# More pods than this of one namespace are not looked at when its labels change.
# Source: pod-security-admission admission.go, defaultNamespaceMaxPodsToCheck.
_MOST_PODS = 3000


class PodSecurity:
    """Refuses what the namespace's enforce label does not allow, warns by its warn label."""

    name = "PodSecurity"

    def __init__(self, objects: ObjectAccess) -> None:
        self._objects = objects

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Pods, workloads with templates, and namespaces, made or changed."""
        if attributes.operation not in _WRITES:
            return False
        resource = attributes.resource
        if not resource.group and resource.plural == "pods":
            return attributes.subresource in ("", "ephemeralcontainers")
        if attributes.subresource:
            return False
        return (resource.group, resource.plural) in _TEMPLATES or (
            not resource.group and resource.plural == "namespaces"
        )

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raises Forbidden with every rule that is broken, Invalid for labels that name no level."""
        plural = attributes.resource.plural
        if plural == "namespaces":
            await self._validate_namespace(attributes)
            return
        levels = await self._levels(attributes.namespace)
        if not levels:
            return
        obj: Any = attributes.object
        if plural == "pods":
            self._validate_pod(attributes, obj, levels)
            return
        template = _template(obj)
        found = findings(levels[WARN], Pod(template.metadata, template.spec))
        if found:
            attributes.warn(f"would violate {told(levels[WARN], found)}")

    def _validate_pod(self, attributes: AdmissionAttributes, obj: Any, levels: dict[str, Level]) -> None:
        old: Any = attributes.old_object
        if old is not None and not _matters(obj, old):
            return
        pod = Pod(obj.metadata, obj.spec)
        found = findings(levels[ENFORCE], pod)
        if found:
            raise refuse(attributes, f"violates {told(levels[ENFORCE], found)}")
        warned = findings(levels[WARN], pod)
        if warned:
            attributes.warn(f"would violate {told(levels[WARN], warned)}")

    async def _levels(self, namespace: str) -> dict[str, Level]:
        """The levels of a namespace; empty where it asks for nothing."""
        try:
            found: Any = await self._objects.get(Namespace, namespace)
        except NotFound:
            return {}
        labels = found.metadata.labels
        if not any(key.startswith(PREFIX) for key in labels):
            return {}
        return read_labels(labels)[0]

    async def _validate_namespace(self, attributes: AdmissionAttributes) -> None:
        new: Any = attributes.object
        old: Any = attributes.old_object
        levels, errors = read_labels(new.metadata.labels)
        before = read_labels(old.metadata.labels)[1] if old is not None else []
        fresh = [error for error in errors if error not in before]
        if fresh:
            raise Invalid.of("Namespace", new.metadata.name, fresh)
        was = read_labels(old.metadata.labels)[0][ENFORCE] if old is not None else FREE
        if old is None or levels[ENFORCE] in (was, FREE):
            return
        await self._warn_of_pods(attributes, levels[ENFORCE])

    async def _warn_of_pods(self, attributes: AdmissionAttributes, level: Level) -> None:
        """Tell of pods that are there already and could not be made any more."""
        name = attributes.name
        pods: list[Any] = await self._objects.list(PodObject, name)
        by_reason: dict[str, list[str]] = defaultdict(list)
        for pod in pods[:_MOST_PODS]:
            reasons = ", ".join(finding.reason for finding in findings(level, Pod(pod.metadata, pod.spec)))
            if reasons:
                by_reason[reasons].append(pod.metadata.name)
        if not by_reason:
            return
        attributes.warn(f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{level}"')
        for reasons, names in sorted(by_reason.items()):
            others = len(names) - 1
            more = f" (and {others} other pod{'s' if others > 1 else ''})" if others else ""
            attributes.warn(f"{min(names)}{more}: {reasons}")


def _matters(new: Any, old: Any) -> bool:
    """Whether a change of a pod touches what the standards are about; images and tolerations are not."""
    return bool(_essence(new) != _essence(old))


def _essence(pod: Any) -> Any:
    spec = type(pod.spec)()
    spec.CopyFrom(pod.spec)
    for name in ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates"):
        spec.ClearField(name)
    for container in (*spec.containers, *spec.initContainers):
        container.ClearField("image")
    profiles = {key: value for key, value in pod.metadata.annotations.items() if "apparmor" in key}
    return spec, profiles


def _template(obj: Any) -> Any:
    if "template" in obj.DESCRIPTOR.fields_by_name:
        return obj.template
    spec = obj.spec
    return spec.jobTemplate.spec.template if "jobTemplate" in spec.DESCRIPTOR.fields_by_name else spec.template
