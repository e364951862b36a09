"""Rules of the kinds, one table for what is refused at creation and one for changes."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from tests.unit.apiserver.registry.bench import create_faults, update_faults
from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import ValidatingAdmissionPolicyBinding
from tiphys.api.admissionregistration.v1beta1.admissionregistration_pb2 import MutatingAdmissionPolicyBinding
from tiphys.api.apps.v1.apps_pb2 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from tiphys.api.autoscaling.v2.autoscaling_pb2 import HorizontalPodAutoscaler
from tiphys.api.batch.v1.batch_pb2 import CronJob, Job
from tiphys.api.certificates.v1.certificates_pb2 import CertificateSigningRequest
from tiphys.api.coordination.v1.coordination_pb2 import Lease
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.endpoints_pb2 import Endpoints
from tiphys.api.core.v1.event_pb2 import Event
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.node_pb2 import Node
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim
from tiphys.api.core.v1.persistent_volume_pb2 import PersistentVolume
from tiphys.api.core.v1.replication_controller_pb2 import ReplicationController
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.api.discovery.v1.discovery_pb2 import EndpointSlice
from tiphys.api.networking.v1.networking_pb2 import Ingress, NetworkPolicy
from tiphys.api.policy.v1.policy_pb2 import PodDisruptionBudget
from tiphys.api.rbac.v1.rbac_pb2 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from tiphys.api.scheduling.v1.scheduling_pb2 import PriorityClass

META = "metadata: {name: x, namespace: web}"
POD = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}"
MOUNTING_POD = (
    "template: {metadata: {labels: {a: b}},"
    " spec: {containers: [{name: c, image: i, volumeMounts: [{name: data, mountPath: /data}]}]}}"
)
SELECTOR = "selector: {matchLabels: {a: b}}"
JOB_POD = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}"
CLAIM = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}"
CLAIMS = f"volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{{CLAIM}}}}}]"
VOLUME = "capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}"
RBAC = "rbac.authorization.k8s.io"


def spec(*parts: str) -> str:
    return f"{{{META}, spec: {{{', '.join(parts)}}}}}"


def body(*parts: str) -> str:
    return f"{{{', '.join((META, *parts))}}}"


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        pytest.param(Deployment, spec(SELECTOR, POD), id="deployment"),
        pytest.param(ReplicaSet, spec(SELECTOR, POD), id="replica set"),
        pytest.param(DaemonSet, spec(SELECTOR, POD), id="daemon set"),
        pytest.param(StatefulSet, spec(SELECTOR, POD, "serviceName: s"), id="stateful set"),
        pytest.param(StatefulSet, spec(SELECTOR, MOUNTING_POD, CLAIMS, "serviceName: s"), id="claim templates"),
        pytest.param(ReplicationController, spec(POD), id="replication controller"),
        pytest.param(Job, spec(JOB_POD), id="job"),
        pytest.param(
            CronJob, spec("schedule: '*/5 1-3,7 * jan mon'", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"), id="cron"
        ),
        pytest.param(CronJob, spec("schedule: '@daily'", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"), id="daily"),
        pytest.param(ConfigMap, body("data: {a.b-c_d: x}", "binaryData: {e: AAAA}"), id="config map"),
        pytest.param(Secret, body("stringData: {a: b}"), id="secret"),
        pytest.param(PersistentVolume, spec(VOLUME), id="volume"),
        pytest.param(PersistentVolumeClaim, spec(CLAIM), id="claim"),
        pytest.param(Endpoints, body("subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 1}]}]"), id="endpoints"),
        pytest.param(
            EndpointSlice,
            body("addressType: IPv4", "endpoints: [{addresses: [10.0.0.1]}]", "ports: [{port: 1}]"),
            id="slice",
        ),
        pytest.param(Lease, spec("holderIdentity: h", "leaseDurationSeconds: 15"), id="lease"),
        pytest.param(Event, body("involvedObject: {kind: Pod, namespace: web, name: p}"), id="event"),
        pytest.param(NetworkPolicy, spec("podSelector: {}", "ingress: [{from: [{podSelector: {}}]}]"), id="policy"),
        pytest.param(Ingress, spec("defaultBackend: {service: {name: s, port: {number: 80}}}"), id="ingress"),
        pytest.param(PodDisruptionBudget, spec("minAvailable: 50%", SELECTOR), id="budget"),
        pytest.param(Role, body("rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]"), id="role"),
        pytest.param(
            ClusterRole, "{metadata: {name: 'system:x'}, rules: [{verbs: [get], nonResourceURLs: [/x]}]}", id="urls"
        ),
        pytest.param(
            RoleBinding, body("roleRef: {kind: Role, name: r}", "subjects: [{kind: User, name: ann}]"), id="binding"
        ),
        pytest.param(
            HorizontalPodAutoscaler, spec("maxReplicas: 3", "scaleTargetRef: {kind: D, name: d}"), id="scaler"
        ),
        pytest.param(PriorityClass, "{metadata: {name: high}, value: 1000}", id="priority class"),
        pytest.param(Node, "{metadata: {name: n}, spec: {podCIDR: 10.244.0.0/24}}", id="node"),
        pytest.param(Namespace, "{metadata: {name: n}}", id="namespace"),
    ],
)
def test_ordinary_objects_have_no_fault(cls: type[Message], text: str) -> None:
    assert create_faults(cls, text) == []


@pytest.mark.parametrize(
    ("cls", "text", "fault"),
    [
        pytest.param(Deployment, spec(POD), "spec.selector: Required value", id="no selector"),
        pytest.param(
            Deployment,
            spec(POD),
            'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`',
            id="no selector fits nothing",
        ),
        pytest.param(
            Job,
            spec("template: {spec: {containers: [{name: c, image: i}]}}"),
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
            id="restart policy of a job left open",
        ),
        pytest.param(
            CronJob,
            spec("schedule: 1 2 3", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"),
            'spec.schedule: Invalid value: "1 2 3": expected exactly 5 fields, found 3: [1 2 3]',
            id="schedule",
        ),
        pytest.param(
            Deployment, spec("selector: {}", POD), "empty selector is invalid for deployment", id="empty selector"
        ),
        pytest.param(
            Deployment,
            spec("selector: {matchLabels: {a: other}}", POD),
            'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`',
            id="selector and template",
        ),
        pytest.param(
            Deployment,
            spec(SELECTOR, POD.replace("spec: {", "spec: {restartPolicy: Never, ")),
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
            id="restart policy",
        ),
        pytest.param(
            Deployment,
            spec(SELECTOR, POD, "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}"),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            id="update that cannot move",
        ),
        pytest.param(
            Deployment,
            spec(SELECTOR, POD, "strategy: {type: Recreate, rollingUpdate: {}}"),
            "spec.strategy.rollingUpdate: Forbidden",
            id="recreate with rolling update",
        ),
        pytest.param(
            Deployment,
            spec(SELECTOR, POD, "minReadySeconds: 600"),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            id="deadline before ready",
        ),
        pytest.param(
            DaemonSet,
            spec(SELECTOR, POD, "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}"),
            "may not be set when maxUnavailable is non-zero",
            id="surge and unavailable",
        ),
        pytest.param(
            ReplicationController, spec(POD, "selector: {z: z}"), "does not match template `labels`", id="map selector"
        ),
        pytest.param(
            Job,
            spec(JOB_POD.replace("Never", "Always")),
            'Required value: valid values: "OnFailure", "Never"',
            id="job that never ends",
        ),
        pytest.param(Job, spec(JOB_POD, "completionMode: Indexed"), "", id="indexed with the default of one"),
        pytest.param(
            CronJob,
            spec("schedule: '61 * * * *'", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"),
            "end of range (61) above maximum (59)",
            id="minute 61",
        ),
        pytest.param(
            CronJob,
            spec("schedule: '* * * * *'", "timeZone: Moon/Base", f"jobTemplate: {{spec: {{{JOB_POD}}}}}"),
            "unknown time zone Moon/Base",
            id="time zone",
        ),
        pytest.param(
            ValidatingAdmissionPolicyBinding,
            "{metadata: {name: b}, spec: {policyName: p, validationActions: [Deny],"
            " matchResources: {namespaceSelector: {matchExpressions: [{key: 'ﷺ', operator: In, values: [a/b]}]}}}}",
            "spec.matchResources.namespaceSelector.matchExpressions[0].key: Invalid value",
            id="selector of a binding",
        ),
        pytest.param(
            MutatingAdmissionPolicyBinding,
            "{metadata: {name: b}, spec: {policyName: p,"
            " paramRef: {parameterNotFoundAction: Deny, selector: {matchLabels: {a: '-'}}}}}",
            "spec.paramRef.selector.matchLabels: Invalid value",
            id="selector of parameters",
        ),
        pytest.param(ConfigMap, body("data: {'a/b': x}"), "data[a/b]: Invalid value", id="key"),
        pytest.param(ConfigMap, body("data: {a: x}", "binaryData: {a: AAAA}"), "duplicate of key present", id="both"),
        pytest.param(Secret, body("type: kubernetes.io/tls"), "data[tls.crt]: Required value", id="tls"),
        pytest.param(Secret, body("type: kubernetes.io/basic-auth"), "data[username]: Required value", id="basic"),
        pytest.param(
            Secret,
            body("type: kubernetes.io/dockerconfigjson", "stringData: {.dockerconfigjson: '{'}"),
            "<secret contents redacted>",
            id="docker config that is no JSON, and is not shown",
        ),
        pytest.param(
            Secret,
            body("type: kubernetes.io/service-account-token"),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
            id="token of nobody",
        ),
        pytest.param(
            PersistentVolume, spec("accessModes: [ReadWriteOnce]"), "must specify a volume type", id="no source"
        ),
        pytest.param(
            PersistentVolume,
            spec(VOLUME, "nfs: {server: s, path: /p}"),
            "may not specify more than 1",
            id="two sources",
        ),
        pytest.param(PersistentVolumeClaim, spec("accessModes: [ReadWriteOnce]"), "spec.resources[storage]", id="size"),
        pytest.param(
            PersistentVolumeClaim, spec(CLAIM.replace("ReadWriteOnce", "")), "spec.accessModes", id="no access mode"
        ),
        pytest.param(
            Endpoints,
            body("subsets: [{addresses: [{ip: 127.0.0.1}]}]"),
            "may not be in the loopback range",
            id="loopback",
        ),
        pytest.param(
            EndpointSlice,
            body("addressType: IPv6", "endpoints: [{addresses: [10.0.0.1]}]"),
            "must be an IPv6 address",
            id="family of a slice",
        ),
        pytest.param(Lease, spec("leaseDurationSeconds: 0"), "must be greater than 0", id="lease of no length"),
        pytest.param(
            Event,
            body("involvedObject: {kind: Pod, namespace: other, name: p}"),
            'involvedObject.namespace: Invalid value: "other": does not match event.namespace',
            id="event elsewhere",
        ),
        pytest.param(NetworkPolicy, spec("ingress: [{from: [{}]}]"), "must specify a peer", id="peer"),
        pytest.param(
            NetworkPolicy,
            spec("egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]"),
            "must be a strict subset of `cidr`",
            id="exception outside",
        ),
        pytest.param(
            NetworkPolicy,
            spec("ingress: [{ports: [{port: 90, endPort: 80}]}]"),
            "greater than or equal to `port`",
            id="range",
        ),
        pytest.param(Ingress, spec("rules: []"), "either `defaultBackend` or `rules` must be specified", id="nothing"),
        pytest.param(
            Ingress, spec("rules: [{host: 1.2.3.4}]"), "must be a DNS name, not an IP address", id="host address"
        ),
        pytest.param(
            PodDisruptionBudget,
            spec("minAvailable: 1", "maxUnavailable: 1"),
            "minAvailable and maxUnavailable cannot be both set",
            id="both bounds",
        ),
        pytest.param(
            Role, body("rules: [{verbs: [get], nonResourceURLs: [/x]}]"), "cannot apply to non-resource URLs", id="urls"
        ),
        pytest.param(
            Role, body("rules: [{verbs: [get], resources: [pods]}]"), "must supply at least one api group", id="group"
        ),
        pytest.param(
            ClusterRoleBinding,
            "{metadata: {name: x}, roleRef: {kind: Role, name: r}}",
            'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"',
            id="cluster binding to a role",
        ),
        pytest.param(
            ClusterRoleBinding,
            "{metadata: {name: x}, roleRef: {kind: ClusterRole, name: r}, subjects: [{kind: ServiceAccount, name: s}]}",
            "subjects[0].namespace: Required value",
            id="account without namespace",
        ),
        pytest.param(
            HorizontalPodAutoscaler,
            spec("minReplicas: 5", "maxReplicas: 3", "scaleTargetRef: {kind: D, name: d}"),
            "must be greater than or equal to `minReplicas`",
            id="bounds of a scaler",
        ),
        pytest.param(
            PriorityClass, "{metadata: {name: x}, value: 1000000001}", "maximum allowed value of a user", id="too high"
        ),
        pytest.param(
            PriorityClass, "{metadata: {name: system-mine}, value: 1}", "reserved for system use only", id="system name"
        ),
        pytest.param(
            Node,
            "{metadata: {name: n}, spec: {taints: [{key: k, effect: NoSchedule}, {key: k, effect: NoSchedule}]}}",
            "spec.taints[1]: Duplicate value",
            id="taint twice",
        ),
        pytest.param(
            CertificateSigningRequest,
            "{metadata: {name: x}, spec: {request: eA==, signerName: a.b/c, usages: [digital signature]}}",
            "PEM block type must be CERTIFICATE REQUEST",
            id="no request",
        ),
    ],
)
def test_bad_objects_are_told_what_is_wrong(cls: type[Message], text: str, fault: str) -> None:
    found = create_faults(cls, text)
    assert (found == []) if not fault else any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("cls", "before", "after", "fault"),
    [
        pytest.param(
            Deployment,
            spec(SELECTOR, POD),
            spec("selector: {matchLabels: {c: d}}", POD.replace("{a: b}", "{a: b, c: d}")),
            "spec.selector: Invalid value",
            id="selector of a deployment",
        ),
        pytest.param(Deployment, spec(SELECTOR, POD), spec(SELECTOR, POD, "replicas: 5"), "", id="replicas"),
        pytest.param(
            StatefulSet,
            spec(SELECTOR, POD, "serviceName: s"),
            spec(SELECTOR, POD, "serviceName: t"),
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas'",
            id="service of a stateful set",
        ),
        pytest.param(
            Job,
            spec(JOB_POD, "manualSelector: true", SELECTOR).replace(
                "{spec: {restart", "{metadata: {labels: {a: b}}, spec: {restart"
            ),
            spec(JOB_POD.replace("image: i", "image: j"), "manualSelector: true", SELECTOR).replace(
                "{spec: {restart", "{metadata: {labels: {a: b}}, spec: {restart"
            ),
            "spec.template: Invalid value",
            id="template of a job",
        ),
        pytest.param(
            ConfigMap,
            body("immutable: true", "data: {a: b}"),
            body("immutable: true", "data: {a: c}"),
            "data: Forbidden: field is immutable when `immutable` is set",
            id="immutable config map",
        ),
        pytest.param(
            Secret, body("immutable: true"), body("immutable: false"), "immutable: Forbidden", id="immutable for ever"
        ),
        pytest.param(
            Secret, body("type: Opaque"), body("type: example.com/x"), "type: Invalid value", id="secret's type"
        ),
        pytest.param(
            PersistentVolume,
            spec(VOLUME),
            spec(VOLUME.replace("/x", "/y")),
            "spec.persistentvolumesource is immutable after creation",
            id="source of a volume",
        ),
        pytest.param(
            PersistentVolumeClaim,
            spec(CLAIM),
            spec(CLAIM.replace("1Gi", "2Gi")),
            "spec is immutable after creation except",
            id="size of an unbound claim",
        ),
        pytest.param(PersistentVolumeClaim, spec(CLAIM), spec(CLAIM, "volumeName: pv"), "", id="binding a claim"),
        pytest.param(
            RoleBinding,
            body("roleRef: {kind: Role, name: r}"),
            body("roleRef: {kind: Role, name: s}"),
            "roleRef: Invalid value",
            id="role of a binding",
        ),
        pytest.param(
            Node,
            "{metadata: {name: n}, spec: {podCIDR: 10.244.0.0/24}}",
            "{metadata: {name: n}, spec: {podCIDR: 10.244.1.0/24}}",
            'node updates may not change podCIDR except from "" to valid',
            id="pod range of a node",
        ),
        pytest.param(
            Node, "{metadata: {name: n}}", "{metadata: {name: n}, spec: {podCIDR: 10.244.1.0/24}}", "", id="first range"
        ),
        pytest.param(
            PriorityClass, "{metadata: {name: x}, value: 1}", "{metadata: {name: x}, value: 2}", "value", id="priority"
        ),
    ],
)
def test_changes(cls: type[Message], before: str, after: str, fault: str) -> None:
    found = update_faults(cls, before, after)
    assert (found == []) if not fault else any(fault in text for text in found), found
