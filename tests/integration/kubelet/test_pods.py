"""Pods on a real containerd: the road from the API's object to a process, and back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.containerd import ContainerdNode
from tests.support.kubelet import (
    RunningKubelet,
    add_container,
    is_ready,
    is_running,
    make_pod,
    running_kubelet,
    wait_until,
    waiting_reason,
)
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.api.core.v1.secret_pb2 import Secret

# ruff: noqa: ASYNC240  files are looked at once, in a test
pytestmark = pytest.mark.containerd


def log_of(kubelet: RunningKubelet, pod: Pod, container: str = "app") -> str:
    """What the newest run of a container has written."""
    run = kubelet.kubelet.lifecycle.observation(pod.metadata.uid).latest(container)
    assert run is not None
    lines = Path(run.log_path).read_text().splitlines()
    return "\n".join(line.split(" ", 3)[3] for line in lines)


def has_ended(pod: Pod) -> bool:
    """The phase says so."""
    return pod.status.phase in ("Succeeded", "Failed")


async def test_pod_runs_and_its_status_says_so(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("web"))
    pod = await kubelet.until("web", is_ready)
    status = pod.status
    assert status.phase == "Running"
    assert status.podIP == status.podIPs[0].ip != ""
    assert status.hostIP == "127.0.0.1"
    assert status.qosClass == "BestEffort"
    assert [c.type for c in status.conditions] == [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    told = status.containerStatuses[0]
    assert told.ready
    assert told.started
    assert told.restartCount == 0
    assert told.containerID.startswith("containerd://")
    assert told.state.HasField("running")


async def test_deletion_ends_the_pod_and_leaves_nothing(kubelet: RunningKubelet) -> None:
    pod = await kubelet.create(make_pod("short"))
    await kubelet.until("short", is_running)
    await kubelet.client.delete(Pod, "short", "default")
    await kubelet.until_gone("short")
    await wait_until(lambda: not kubelet.kubelet.workers.workers())
    assert kubelet.kubelet.workers.workers() == ()
    assert pod.metadata.uid not in kubelet.kubelet.volumes.uids()
    assert kubelet.kubelet.lifecycle.observation(pod.metadata.uid).sandboxes == ()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/*/kubepods/besteffort/pod{pod.metadata.uid}"))


async def test_container_that_ignores_term_is_killed_after_its_grace(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("stubborn", "sh", "-c", "trap '' TERM; while true; do sleep 1; done", grace=1))
    await kubelet.until("stubborn", is_running)
    started = time.monotonic()
    await kubelet.client.delete(Pod, "stubborn", "default")
    await kubelet.until_gone("stubborn")
    assert time.monotonic() - started >= 0.9


async def test_environment_comes_from_objects_fields_and_other_variables(kubelet: RunningKubelet) -> None:
    config = ConfigMap(data={"color": "blue", "size": "big"})
    config.metadata.name, config.metadata.namespace = "conf", "default"
    secret = Secret(data={"word": b"hush"})
    secret.metadata.name, secret.metadata.namespace = "sec", "default"
    kubelet.client.seed(config, secret)
    pod = make_pod("env", "sh", "-c", "echo $A-$B-$C-$D-$P_color-$E; exec sleep 1000", grace=1)
    container = pod.spec.containers[0]
    container.envFrom.add(prefix="P_").configMapRef.localObjectReference.name = "conf"
    container.env.add(name="A").valueFrom.configMapKeyRef.localObjectReference.name = "conf"
    container.env[0].valueFrom.configMapKeyRef.key = "size"
    container.env.add(name="B").valueFrom.secretKeyRef.localObjectReference.name = "sec"
    container.env[1].valueFrom.secretKeyRef.key = "word"
    container.env.add(name="C").valueFrom.fieldRef.fieldPath = "metadata.name"
    container.env.add(name="D", value="$(A)/$(NONE)/$$(A)")
    container.env.add(name="E").valueFrom.fieldRef.fieldPath = "status.podIP"
    await kubelet.create(pod)
    running = await kubelet.until("env", is_running)
    await asyncio.sleep(0.2)
    assert log_of(kubelet, pod) == f"big-hush-env-big/$(NONE)/$(A)-blue-{running.status.podIP}"


async def test_missing_config_map_waits_and_starts_when_it_appears(kubelet: RunningKubelet) -> None:
    pod = make_pod("waits")
    pod.spec.containers[0].envFrom.add().configMapRef.localObjectReference.name = "later"
    await kubelet.create(pod)
    waiting = await kubelet.until("waits", lambda p: waiting_reason(p) == "CreateContainerConfigError")
    assert waiting.status.containerStatuses[0].state.waiting.message == 'configmap "later" not found'
    config = ConfigMap()
    config.metadata.name, config.metadata.namespace = "later", "default"
    await kubelet.client.create(config)
    await kubelet.until("waits", is_running, timeout_s=5)


async def test_volumes_hold_their_content_and_follow_changes(kubelet: RunningKubelet, root: Path) -> None:
    config = ConfigMap(data={"a.txt": "one"})
    config.metadata.name, config.metadata.namespace = "files", "default"
    secret = Secret(data={"key": b"s3"})
    secret.metadata.name, secret.metadata.namespace = "hidden", "default"
    kubelet.client.seed(config, secret)
    (root / "host").mkdir()
    (root / "host" / "f").write_text("from the node")
    script = (
        "cat /c/a.txt /s/key /h/f /d/labels; echo; echo x > /e/shared; while sleep 0.05; do cat /c/a.txt; echo; done"
    )
    pod = make_pod("vols", "sh", "-c", script, grace=1)
    pod.metadata.labels["tier"] = "front"
    for name, path in (("c", "/c"), ("s", "/s"), ("h", "/h"), ("d", "/d"), ("e", "/e"), ("m", "/m")):
        pod.spec.volumes.add(name=name)
        pod.spec.containers[0].volumeMounts.add(name=name, mountPath=path)
    sources = {volume.name: volume.volumeSource for volume in pod.spec.volumes}
    sources["c"].configMap.localObjectReference.name = "files"
    sources["s"].secret.secretName = "hidden"
    sources["h"].hostPath.path = str(root / "host")
    sources["h"].hostPath.type = "Directory"
    sources["d"].downwardAPI.items.add(path="labels").fieldRef.fieldPath = "metadata.labels"
    sources["e"].emptyDir.SetInParent()
    sources["m"].emptyDir.medium = "Memory"
    await kubelet.create(pod)
    await kubelet.until("vols", is_running)
    await asyncio.sleep(0.2)
    assert log_of(kubelet, pod).startswith('ones3from the nodetier="front"')
    await kubelet.client.patch(ConfigMap, "files", "default", {"data": {"a.txt": "two"}})
    await wait_until(lambda: log_of(kubelet, pod).endswith("two"))
    assert log_of(kubelet, pod).endswith("two")
    base = root / "kubelet" / "pods" / pod.metadata.uid / "volumes"
    assert (base / "kubernetes.io~empty-dir" / "e" / "shared").read_text() == "x\n"
    mounts = Path("/proc/self/mountinfo").read_text()
    assert f"{base}/kubernetes.io~secret/s " in mounts
    assert f"{base}/kubernetes.io~empty-dir/m " in mounts


async def test_wrong_host_path_type_is_told_by_an_event(kubelet: RunningKubelet, root: Path) -> None:
    pod = make_pod("badpath")
    volume = pod.spec.volumes.add(name="h")
    volume.volumeSource.hostPath.path, volume.volumeSource.hostPath.type = str(root), "File"
    await kubelet.create(pod)
    await wait_until(lambda: any(reason.startswith("FailedMount") for reason in kubelet.reasons("badpath")))
    expected = (
        f'FailedMount: MountVolume.SetUp failed for volume "h" : hostPath type check failed: {root} is not a file'
    )
    assert expected in kubelet.reasons("badpath")


@pytest.mark.parametrize(
    ("policy", "command", "phase", "code"),
    [("Never", "exit 3", "Failed", 3), ("Never", "exit 0", "Succeeded", 0), ("OnFailure", "exit 0", "Succeeded", 0)],
    ids=["never-fails", "never-succeeds", "on-failure-succeeds"],
)
async def test_pod_that_is_not_restarted_ends(
    kubelet: RunningKubelet, policy: str, command: str, phase: str, code: int
) -> None:
    name = f"end-{policy.lower()}-{code}"
    await kubelet.create(make_pod(name, "sh", "-c", f"echo said > /dev/termination-log; {command}", restart=policy))
    pod = await kubelet.until(name, has_ended)
    ended = pod.status.containerStatuses[0].state.terminated
    assert (pod.status.phase, ended.exitCode, ended.message) == (phase, code, "said\n")
    assert ended.reason == ("Error" if code else "Completed")


async def test_crash_is_restarted_at_once_and_then_held_back(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("crash", "sh", "-c", "exit 7"))
    pod = await kubelet.until("crash", lambda p: waiting_reason(p) == "CrashLoopBackOff")
    told = pod.status.containerStatuses[0]
    assert told.restartCount == 1
    assert told.lastState.terminated.exitCode == 7
    uid = pod.metadata.uid
    assert told.state.waiting.message == (f"back-off 10s restarting failed container=app pod=crash_default({uid})")
    assert not any(c.status == "True" for c in pod.status.conditions if c.type == "Ready")
    assert any(
        reason.startswith("BackOff: Back-off restarting failed container app") for reason in kubelet.reasons("crash")
    )


async def test_bad_command_is_told_as_start_error(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("badcmd", "/no/such/program", restart="Never"))
    pod = await kubelet.until("badcmd", has_ended)
    ended = pod.status.containerStatuses[0].state.terminated
    assert (ended.reason, ended.exitCode) == ("StartError", 128)


async def test_image_that_is_not_there_is_told_and_held_back(kubelet: RunningKubelet) -> None:
    pod = make_pod("noimage")
    pod.spec.containers[0].image = "127.0.0.1:1/none:1"
    await kubelet.create(pod)
    await kubelet.until("noimage", lambda p: waiting_reason(p) == "ErrImagePull")
    held = await kubelet.until("noimage", lambda p: waiting_reason(p) == "ImagePullBackOff")
    assert held.status.containerStatuses[0].state.waiting.message.startswith(
        'Back-off pulling image "127.0.0.1:1/none:1"'
    )
    assert held.status.phase == "Pending"


async def test_never_pulled_image_is_refused(kubelet: RunningKubelet) -> None:
    pod = make_pod("never")
    pod.spec.containers[0].image, pod.spec.containers[0].imagePullPolicy = "absent:1", "Never"
    await kubelet.create(pod)
    await kubelet.until("never", lambda p: waiting_reason(p) == "ErrImageNeverPull")


async def test_init_containers_run_in_order_and_sidecars_stay(kubelet: RunningKubelet) -> None:
    pod = make_pod("init", "sh", "-c", "cat /w/log; exit 0", restart="Never")
    pod.spec.volumes.add(name="w").volumeSource.emptyDir.SetInParent()
    for name, policy, script in (
        ("first", "", "sleep 0.1; echo first >> /w/log"),
        ("side", "Always", "trap 'exit 0' TERM; echo side >> /w/log; sleep 1000 & wait"),
        ("second", "", "sleep 0.1; echo second >> /w/log"),
    ):
        container = pod.spec.initContainers.add(name=name, image="busybox", imagePullPolicy="IfNotPresent")
        container.command.extend(["sh", "-c", script])
        container.volumeMounts.add(name="w", mountPath="/w")
        if policy:
            container.restartPolicy = policy
    pod.spec.containers[0].volumeMounts.add(name="w", mountPath="/w")
    await kubelet.create(pod)
    ended = await kubelet.until("init", has_ended)
    assert ended.status.phase == "Succeeded"
    assert log_of(kubelet, pod) == "first\nside\nsecond"
    side = next(s for s in ended.status.initContainerStatuses if s.name == "side")
    assert side.state.HasField("terminated")


async def test_failed_init_container_fails_a_pod_that_never_restarts(kubelet: RunningKubelet) -> None:
    pod = make_pod("initfail", restart="Never")
    container = pod.spec.initContainers.add(name="bad", image="busybox", imagePullPolicy="IfNotPresent")
    container.command.extend(["sh", "-c", "exit 1"])
    await kubelet.create(pod)
    ended = await kubelet.until("initfail", has_ended)
    assert ended.status.phase == "Failed"


async def test_two_containers_share_network_and_one_crash_leaves_the_other(kubelet: RunningKubelet) -> None:
    pod = make_pod("pair", "httpd", "-f", "-p", "8080")
    add_container(pod, "peer", "sh", "-c", "sleep 0.3; nc 127.0.0.1 8080 < /dev/null && exit 5; exit 6")
    await kubelet.create(pod)
    seen = await kubelet.until("pair", lambda p: any(s.restartCount > 0 for s in p.status.containerStatuses))
    app, peer = sorted(seen.status.containerStatuses, key=lambda s: s.name)
    assert peer.lastState.terminated.exitCode == 5
    assert app.restartCount == 0


async def test_killed_by_hand_is_seen_by_the_event(kubelet: RunningKubelet, containerd: ContainerdNode) -> None:
    pod = make_pod("killed")
    await kubelet.create(pod)
    await kubelet.until("killed", is_ready)
    run = kubelet.kubelet.lifecycle.observation(pod.metadata.uid).latest("app")
    assert run is not None
    # Right after a look at all, so that the next one is as far away as can be.
    before = kubelet.kubelet.lifecycle.relisted_at
    async with asyncio.timeout(60):
        while (listed_at := kubelet.kubelet.lifecycle.relisted_at) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await kubelet.runtime.stop_container(run.id, 0)
    again = await kubelet.until("killed", lambda p: p.status.containerStatuses[0].restartCount == 1)
    assert kubelet.kubelet.lifecycle.relisted_at == listed_at, "an event should have told, not the next look at all"
    assert again.status.containerStatuses[0].lastState.terminated.exitCode in (137, 0)


async def test_dead_sandbox_is_replaced_with_all_containers(kubelet: RunningKubelet) -> None:
    pod = make_pod("reborn")
    await kubelet.create(pod)
    first = await kubelet.until("reborn", is_ready)
    sandbox = kubelet.kubelet.lifecycle.observation(pod.metadata.uid).sandbox
    assert sandbox is not None
    await kubelet.runtime.stop_pod_sandbox(sandbox.id)
    again = await kubelet.until("reborn", lambda p: is_ready(p) and p.status.containerStatuses[0].restartCount >= 1)
    assert again.status.podIP != first.status.podIP


async def test_hooks_run_after_the_start_and_before_the_end(kubelet: RunningKubelet, root: Path) -> None:
    pod = make_pod("hooks", "sh", "-c", "trap 'echo term >> /h/log; exit 0' TERM; sleep 1000 & wait", grace=5)
    volume = pod.spec.volumes.add(name="h")
    volume.volumeSource.hostPath.path = str(root)
    container = pod.spec.containers[0]
    container.volumeMounts.add(name="h", mountPath="/h")
    container.lifecycle.postStart.exec.command.extend(["sh", "-c", "echo post >> /h/log"])
    container.lifecycle.preStop.exec.command.extend(["sh", "-c", "echo pre >> /h/log"])
    await kubelet.create(pod)
    await kubelet.until("hooks", is_ready)
    await wait_until(lambda: (root / "log").exists())
    await kubelet.client.delete(Pod, "hooks", "default")
    await kubelet.until_gone("hooks")
    assert (root / "log").read_text() == "post\npre\nterm\n"


async def test_limits_reach_the_kernel(kubelet: RunningKubelet) -> None:
    pod = make_pod("limits")
    limits = pod.spec.containers[0].resources.limits
    limits["memory"].string, limits["cpu"].string = "64Mi", "500m"
    await kubelet.create(pod)
    running = await kubelet.until("limits", is_running)
    assert running.status.qosClass == "Guaranteed"
    run = kubelet.kubelet.lifecycle.observation(pod.metadata.uid).latest("app")
    assert run is not None
    found = list(Path("/sys/fs/cgroup/memory").glob(f"**/pod{pod.metadata.uid}/{run.id}/memory.limit_in_bytes"))
    if not found:
        pytest.skip("no cgroup v1 memory hierarchy here")
    assert found[0].read_text().strip() == str(64 * 1024 * 1024)
    quota = next(Path("/sys/fs/cgroup/cpu").glob(f"**/pod{pod.metadata.uid}/{run.id}/cpu.cfs_quota_us"))
    assert quota.read_text().strip() == "50000"


async def test_D36_killed_kubelet_comes_back_without_touching_containers(
    containerd: ContainerdNode, root: Path
) -> None:
    async with running_kubelet(containerd, root) as first:
        for number in range(3):
            await first.create(make_pod(f"stays-{number}"))
        before = [await first.until(f"stays-{number}", is_ready) for number in range(3)]
    # What leaves this context is cancelled in the middle of everything, as a kill would do.
    writes = len(first.client.writes())
    async with running_kubelet(containerd, root, client=first.client) as second:
        await second.kubelet.lifecycle.wait_relisted()
        await wait_until(lambda: len(second.kubelet.workers.workers()) >= 3)
        await asyncio.sleep(0.5)
        for number, pod in enumerate(before):
            now = await second.until(f"stays-{number}", is_ready)
            assert now.status.podIP == pod.status.podIP
            assert now.status.containerStatuses[0].containerID == pod.status.containerStatuses[0].containerID
            assert now.status.containerStatuses[0].restartCount == 0
        patches = [c for c in second.client.writes()[writes:] if c.method == "Patch" and c.name.startswith("stays")]
        assert patches == []


async def test_pod_that_vanished_while_nobody_looked_is_ended(containerd: ContainerdNode, root: Path) -> None:
    async with running_kubelet(containerd, root) as first:
        pod = await first.create(make_pod("orphan"))
        await first.until("orphan", is_ready)
    async with running_kubelet(containerd, root) as second:
        await second.kubelet.lifecycle.wait_relisted()
        await wait_until(lambda: not second.kubelet.lifecycle.observation(pod.metadata.uid).sandboxes)
        assert second.kubelet.lifecycle.observation(pod.metadata.uid).sandboxes == ()
        assert pod.metadata.uid not in second.kubelet.volumes.uids()


async def test_E34_user_groups_and_subpath_reach_the_container(kubelet: RunningKubelet) -> None:
    script = "id -u; id -G; touch /w/sub/f && ls /w/deep/er; cat /one; touch /x 2>/dev/null || echo sealed"
    pod = make_pod("secure", "sh", "-c", script, restart="Never")
    config = ConfigMap(data={"page": "first\n"})
    config.metadata.name, config.metadata.namespace = "pages", "default"
    kubelet.client.seed(config)
    context = pod.spec.securityContext
    context.runAsUser, context.runAsGroup, context.fsGroup = 1000, 2000, 3000
    pod.spec.volumes.add(name="w").volumeSource.emptyDir.SetInParent()
    pod.spec.volumes.add(name="c").volumeSource.configMap.localObjectReference.name = "pages"
    container = pod.spec.containers[0]
    container.securityContext.readOnlyRootFilesystem = True
    container.volumeMounts.add(name="w", mountPath="/w")
    container.volumeMounts.add(name="w", mountPath="/w/sub", subPath="deep/er")
    container.volumeMounts.add(name="c", mountPath="/one", subPath="page")
    await kubelet.create(pod)
    await kubelet.until("secure", has_ended)
    assert log_of(kubelet, pod) == "1000\n2000 3000\nf\nfirst\nsealed"


async def test_host_network_pod_has_the_address_of_the_node(kubelet: RunningKubelet) -> None:
    pod = make_pod("onhost", "sh", "-c", "head -1 /etc/hosts; sleep 1000", grace=1)
    pod.spec.hostNetwork = True
    await kubelet.create(pod)
    running = await kubelet.until("onhost", is_ready)
    assert running.status.podIP == running.status.hostIP == "127.0.0.1"
    await wait_until(lambda: "host network" in log_of(kubelet, pod))


async def test_restarted_container_sees_the_newest_subpath_file_mounted_once(kubelet: RunningKubelet) -> None:
    pod = make_pod("newer", "sh", "-c", "cat /one; while test ! -e /w/stop; do sleep 0.05; done; rm /w/stop; exit 1")
    config = ConfigMap(data={"page": "first\n"})
    config.metadata.name, config.metadata.namespace = "news", "default"
    kubelet.client.seed(config)
    pod.spec.volumes.add(name="w").volumeSource.emptyDir.SetInParent()
    pod.spec.volumes.add(name="c").volumeSource.configMap.localObjectReference.name = "news"
    pod.spec.containers[0].volumeMounts.add(name="w", mountPath="/w")
    pod.spec.containers[0].volumeMounts.add(name="c", mountPath="/one", subPath="page")
    await kubelet.create(pod)
    await kubelet.until("newer", is_ready)
    await kubelet.client.patch(ConfigMap, "news", "default", {"data": {"page": "second\n"}})
    base = kubelet.kubelet.volumes._pods_root / pod.metadata.uid
    page = base / "volumes" / "kubernetes.io~configmap" / "c" / "page"
    await wait_until(lambda: page.read_text() == "second\n")
    (base / "volumes" / "kubernetes.io~empty-dir" / "w" / "stop").touch()
    await kubelet.until("newer", lambda p: is_ready(p) and p.status.containerStatuses[0].restartCount == 1)
    await wait_until(lambda: log_of(kubelet, pod) == "second")
    mounted = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/volume-subpaths/c/" in line]
    assert len([line for line in mounted if pod.metadata.uid in line]) == 1
