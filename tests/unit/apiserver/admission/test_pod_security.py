"""The Pod Security Standards: good pods in, bad pods out, with the words that people know."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.admission.attributes import write
from tests.unit.apiserver.fake_objects import FakeObjects, read
from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.namespace_pb2 import Namespace
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apimachinery.errors import Forbidden, Invalid
from tiphys_apiserver.admission.interface import Operation
from tiphys_apiserver.admission.plugins.pod_security import PodSecurity
from tiphys_apiserver.admission.pod_security import finding
from tiphys_apiserver.admission.pod_security.policy import Level, findings, read_labels

GOOD = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
RESTRICTED_POD = "securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}"
PLAIN = "containers: [{name: c}]"


def restricted(extra: str = "", container: str = GOOD, pod: str = RESTRICTED_POD) -> str:
    return f"{pod}, containers: [{{name: c, {container}}}]{extra}"


def make(spec: str, **annotations: str) -> Any:
    obj: Any = read(Pod, f"spec: {{{spec}}}")
    obj.metadata.name, obj.metadata.namespace = "p", "web"
    obj.metadata.annotations.update(annotations)
    return obj


def broken(level: str, spec: str, version: tuple[int, int] = (1, 40), **annotations: str) -> list[str]:
    pod = make(spec, **annotations)
    return [str(found) for found in findings(Level(level, version), finding.Pod(pod.metadata, pod.spec))]


def namespace(**labels: str) -> Any:
    obj: Any = Namespace()
    obj.metadata.name = "web"
    for name, value in labels.items():
        obj.metadata.labels[f"pod-security.kubernetes.io/{name.replace('_', '-')}"] = value
    return obj


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param(
            f"hostNetwork: true, hostPID: true, {PLAIN}", "host namespaces (hostNetwork=true, hostPID=true)", id="host"
        ),
        pytest.param(
            "containers: [{name: a, securityContext: {privileged: true}},"
            " {name: b, securityContext: {privileged: true}}]",
            'privileged (containers "a", "b" must not set securityContext.privileged=true)', id="privileged",
        ),
        pytest.param(
            "containers: [{name: c, securityContext: {capabilities: {add: [NET_ADMIN, CHOWN, SYS_TIME]}}}]",
            'non-default capabilities (container "c" must not include "NET_ADMIN", "SYS_TIME" in'
            " securityContext.capabilities.add)", id="capabilities",
        ),
        pytest.param(
            f"volumes: [{{name: v, hostPath: {{path: /}}}}], {PLAIN}", 'hostPath volumes (volume "v")', id="hostPath"
        ),
        pytest.param(
            "containers: [{name: c, ports: [{containerPort: 1, hostPort: 80}, {containerPort: 2, hostPort: 81}]}]",
            'hostPort (container "c" uses hostPorts 80, 81)', id="hostPort",
        ),
        pytest.param(
            "containers: [{name: c, livenessProbe: {httpGet: {port: 1, host: 10.0.0.1}}}]",
            'probe or lifecycle host (container "c" must not set a host in probes or lifecycle)', id="probe host",
        ),
        pytest.param(
            f"securityContext: {{appArmorProfile: {{type: Unconfined}}}}, {PLAIN}",
            'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")', id="apparmor",
        ),
        pytest.param(
            "containers: [{name: c, securityContext: {seLinuxOptions: {type: spc_t, user: u}}}]",
            'seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be'
            " set)", id="selinux",
        ),
        pytest.param(
            "containers: [{name: c, securityContext: {procMount: Unmasked}}]",
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")', id="proc mount",
        ),
        pytest.param(
            f"securityContext: {{seccompProfile: {{type: Unconfined}}}}, {PLAIN}",
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")', id="seccomp",
        ),
        pytest.param(
            f"securityContext: {{sysctls: [{{name: kernel.msgmax, value: '1'}}]}}, {PLAIN}",
            "forbidden sysctls (kernel.msgmax)", id="sysctls",
        ),
        pytest.param(
            f"securityContext: {{windowsOptions: {{hostProcess: true}}}}, {PLAIN}",
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)", id="host process",
        ),
        pytest.param(
            f"{PLAIN}, ephemeralContainers: [{{name: debug, securityContext: {{privileged: true}}}}]",
            'privileged (container "debug" must not set securityContext.privileged=true)', id="ephemeral container",
        ),
    ],
)  # fmt: skip
def test_H12_baseline_refuses(spec: str, text: str) -> None:
    assert broken("baseline", spec) == [text]


def test_H12_baseline_refuses_an_annotation_that_switches_apparmor_off() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    assert broken("baseline", PLAIN, (1, 40), **{key: "unconfined"}) == [
        f'forbidden AppArmor profile (annotation "{key}" must not be "unconfined")'
    ]
    assert broken("baseline", PLAIN, (1, 40), **{key: "runtime/default"}) == []


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param(
            restricted(container="securityContext: {capabilities: {drop: [ALL]}}"),
            'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
            id="escalation",
        ),
        pytest.param(
            restricted(container="securityContext: {allowPrivilegeEscalation: false}"),
            'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])', id="drop",
        ),
        pytest.param(
            restricted(container=GOOD.replace("drop", "add: [CHOWN], drop")),
            'unrestricted capabilities (container "c" must not include "CHOWN" in securityContext.capabilities.add)',
            id="add",
        ),
        pytest.param(
            restricted(", volumes: [{name: v, hostPath: {path: /}}, {name: w, emptyDir: {}}]"),
            'restricted volume types (volume "v" uses restricted volume type "hostPath")', id="volumes",
        ),
        pytest.param(
            restricted(pod="securityContext: {seccompProfile: {type: RuntimeDefault}}"),
            'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)', id="root",
        ),
        pytest.param(
            restricted(pod=RESTRICTED_POD.replace("{runAs", "{runAsUser: 0, runAs")),
            "runAsUser=0 (pod must not set runAsUser=0)", id="user 0",
        ),
        pytest.param(
            restricted(pod="securityContext: {runAsNonRoot: true}"),
            'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or'
            ' "Localhost")', id="seccomp",
        ),
    ],
)  # fmt: skip
def test_H12_restricted_refuses_and_baseline_does_not(spec: str, text: str) -> None:
    assert broken("restricted", spec) == [text]
    assert "hostPath" in spec or broken("baseline", spec) == []


@pytest.mark.parametrize(
    ("level", "spec"),
    [
        pytest.param("baseline", PLAIN, id="plain"),
        pytest.param(
            "baseline", "containers: [{name: c, securityContext: {capabilities: {add: [CHOWN]}}}]", id="chown"
        ),
        pytest.param("restricted", restricted(), id="restricted"),
        pytest.param(
            "restricted", restricted(container=GOOD.replace("drop", "add: [NET_BIND_SERVICE], drop")), id="bind"
        ),
        pytest.param(
            "restricted",
            "os: {name: windows}, securityContext: {runAsNonRoot: true}, containers: [{name: c}]",
            id="windows",
        ),
        pytest.param("privileged", f"hostNetwork: true, {PLAIN}", id="privileged"),
    ],
)
def test_H12_good_pods_are_let_in(level: str, spec: str) -> None:
    assert broken(level, spec) == []


@pytest.mark.parametrize(
    ("version", "found"),
    [((1, 28), ["forbidden sysctls (net.ipv4.tcp_fin_timeout)"]), ((1, 29), [])],
    ids=["v1.28", "v1.29"],
)
def test_H12_a_version_has_the_rules_of_its_time(version: tuple[int, int], found: list[str]) -> None:
    spec = f"securityContext: {{sysctls: [{{name: net.ipv4.tcp_fin_timeout, value: '1'}}]}}, {PLAIN}"
    assert broken("baseline", spec, version) == found


def test_H12_unreadable_labels_are_told_and_count_as_restricted() -> None:
    levels, errors = read_labels(
        {"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/warn-version": "1.2"}
    )
    assert str(levels["enforce"]) == "restricted:latest"
    assert str(levels["warn"]) == "privileged:latest"
    assert [str(error) for error in errors] == [
        'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged,'
        " baseline, restricted",
        'metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: "1.2": must be "latest" or "v1.x"',
    ]


async def validated(
    objects: FakeObjects, operation: Operation, obj: Any, old: Any = None, subresource: str = ""
) -> list[str]:
    warnings: list[str] = []
    attributes = write(operation, obj, old, subresource=subresource)
    attributes = type(attributes)(
        **{name: getattr(attributes, name) for name in attributes.__slots__ if name != "warn"}, warn=warnings.append
    )
    plugin = PodSecurity(objects)
    if plugin.handles(attributes):
        await plugin.validate(attributes)
    return warnings


async def test_H12_a_pod_is_refused_with_every_rule_it_breaks() -> None:
    objects = FakeObjects(namespace(enforce="restricted", enforce_version="v1.30"))
    with pytest.raises(Forbidden) as refused:
        await validated(objects, Operation.CREATE, make(f"hostNetwork: true, {PLAIN}"))
    assert str(refused.value).startswith(
        'pods "p" is forbidden: violates PodSecurity "restricted:v1.30": host namespaces (hostNetwork=true),'
        ' allowPrivilegeEscalation != false (container "c" must set'
    )


async def test_H12_warnings_let_it_in() -> None:
    objects = FakeObjects(namespace(warn="baseline"))
    warned = ['would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)']
    assert await validated(objects, Operation.CREATE, make(f"hostNetwork: true, {PLAIN}")) == warned
    deployment: Any = read(Deployment, f"spec: {{template: {{spec: {{hostNetwork: true, {PLAIN}}}}}}}")
    deployment.metadata.name, deployment.metadata.namespace = "d", "web"
    assert await validated(objects, Operation.CREATE, deployment) == warned


async def test_H12_workloads_are_not_refused_their_pods_are() -> None:
    deployment: Any = read(Deployment, f"spec: {{template: {{spec: {{hostNetwork: true, {PLAIN}}}}}}}")
    deployment.metadata.name, deployment.metadata.namespace = "d", "web"
    assert await validated(FakeObjects(namespace(enforce="baseline")), Operation.CREATE, deployment) == []


async def test_H12_a_pod_that_was_there_before_may_still_change_its_image() -> None:
    objects = FakeObjects(namespace(enforce="baseline"))
    old = make("hostNetwork: true, containers: [{name: c, image: a}]")
    assert (
        await validated(objects, Operation.UPDATE, make("hostNetwork: true, containers: [{name: c, image: b}]"), old)
        == []
    )
    debugged = make("hostNetwork: true, containers: [{name: c, image: a}], ephemeralContainers: [{name: d}]")
    with pytest.raises(Forbidden):
        await validated(objects, Operation.UPDATE, debugged, old, "ephemeralcontainers")


async def test_H12_a_stricter_label_tells_of_the_pods_that_break_it() -> None:
    bad, worse = make(f"hostNetwork: true, {PLAIN}"), make(f"hostNetwork: true, {PLAIN}")
    worse.metadata.name = "q"
    old, new = namespace(), namespace(enforce="baseline")
    assert await validated(FakeObjects(old, bad, worse), Operation.UPDATE, new, old) == [
        'existing pods in namespace "web" violate the new PodSecurity enforce level "baseline:latest"',
        "p (and 1 other pod): host namespaces",
    ]


async def test_H12_a_namespace_with_a_bad_label_is_refused() -> None:
    with pytest.raises(Invalid, match="must be one of privileged, baseline, restricted"):
        await validated(FakeObjects(), Operation.CREATE, namespace(enforce="x"))
    bad = namespace(enforce="x")
    assert await validated(FakeObjects(), Operation.UPDATE, bad, bad) == []
