"""The HTTPS server on a real containerd: logs, exec, attach, port-forward, and who may."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import grpc
import pytest

from tests.support.kubelet import RunningKubelet, is_ready, is_running, make_pod
from tiphys.kubelet.v1 import kubelet_pb2
from tiphys.kubelet.v1.kubelet_pb2_grpc import KubeletServiceStub
from tiphys_component.certificates import CertificateAuthority
from tiphys_component.rpc import channel
from tiphys_component.spdy.session import Session, Stream
from tiphys_component.spdy.upgrade import UpgradeRefused, dial
from tiphys_component.tls import TLSFiles
from tiphys_kubelet.stats.cgroup_files import CgroupFiles
from tiphys_kubelet.stats.readings import Reading

pytestmark = pytest.mark.containerd


def tls_of(kubelet: RunningKubelet) -> ssl.SSLContext:
    """As the API server shows itself."""
    context = ssl.create_default_context(cafile=str(kubelet.pki.ca))
    context.load_cert_chain(kubelet.pki.client_cert, kubelet.pki.client_key)
    return context


def url_of(kubelet: RunningKubelet, path: str, **query: object) -> str:
    """A URL of the kubelet."""
    return f"https://127.0.0.1:{kubelet.kubelet.server.bound_port}{path}?{urlencode(query, doseq=True)}"


@asynccontextmanager
async def session_of(kubelet: RunningKubelet) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client with the API server's certificate."""
    connector = aiohttp.TCPConnector(ssl=tls_of(kubelet))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def read_log(kubelet: RunningKubelet, pod: str, **query: object) -> str:
    """A container's log by HTTPS."""
    async with (
        session_of(kubelet) as session,
        session.get(url_of(kubelet, f"/containerLogs/default/{pod}/app", **query)) as response,
    ):
        return await response.text()


async def run_by_websocket(
    kubelet: RunningKubelet,
    pod: str,
    command: list[str],
    *,
    protocol: str,
    stdin: bytes | None = None,
    tty: bool = False,
) -> tuple[bytes, bytes, dict[str, Any]]:
    """stdout, stderr and status of a command."""
    query = {
        "command": command,
        "stdout": 1,
        "stderr": 0 if tty else 1,
        "tty": int(tty),
        "stdin": int(stdin is not None),
    }
    out: dict[int, bytearray] = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    url = url_of(kubelet, f"/exec/default/{pod}/app", **query)
    async with session_of(kubelet) as session, session.ws_connect(url, protocols=[protocol]) as socket:
        assert socket.protocol == protocol
        if stdin is not None:
            await socket.send_bytes(b"\x00" + stdin)
            if protocol.startswith("v5"):
                await socket.send_bytes(b"\xff\x00")
        async for message in socket:
            out[message.data[0]] += message.data[1:]
    return bytes(out[1]), bytes(out[2]), json.loads(out[3])


async def test_logs_tail_limit_timestamps_and_follow(kubelet: RunningKubelet) -> None:
    script = "for i in 1 2 3 4 5; do echo line$i; done; sleep 0.1; echo oops >&2; sleep 0.8; echo late"
    await kubelet.create(make_pod("talk", "sh", "-c", script, restart="Never"))
    await kubelet.until("talk", is_running)
    await asyncio.sleep(0.4)
    assert await read_log(kubelet, "talk", tailLines=2) == "line5\noops\n"
    assert await read_log(kubelet, "talk", limitBytes=8) == "line1\nli"
    assert await read_log(kubelet, "talk", stream="Stderr") == "oops\n"
    stamped = (await read_log(kubelet, "talk", timestamps="true", tailLines=1)).split(" ", 1)
    assert stamped[0].endswith("Z")
    assert stamped[1] == "oops\n"
    followed = await read_log(kubelet, "talk", follow="true", tailLines=1)
    assert followed == "oops\nlate\n"
    assert await read_log(kubelet, "talk", tailLines=0) == ""
    assert (await read_log(kubelet, "talk", sinceSeconds=3600)).startswith("line1\n")


async def test_log_of_the_run_before(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("again", "sh", "-c", "echo run; sleep 0.2; exit 1"))
    assert "previous terminated container" in await read_after_start(kubelet, "again")
    await kubelet.until("again", lambda p: p.status.containerStatuses[0].restartCount == 1)
    assert await read_log(kubelet, "again", previous="true") == "run\n"


async def read_after_start(kubelet: RunningKubelet, name: str) -> str:
    """What is said of a run before the first."""
    await kubelet.until(name, is_running)
    return await read_log(kubelet, name, previous="true")


async def test_log_of_an_unknown_container_is_refused(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("one"))
    await kubelet.until("one", is_running)
    async with (
        session_of(kubelet) as session,
        session.get(url_of(kubelet, "/containerLogs/default/one/none")) as response,
    ):
        assert response.status == 400
        assert await response.text() == "container none is not valid for pod one"


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"], ids=["v5", "v4"])
async def test_exec_by_websocket_gives_output_and_exit_code(kubelet: RunningKubelet, protocol: str) -> None:
    await kubelet.create(make_pod("shell"))
    await kubelet.until("shell", is_ready)
    out, err, status = await run_by_websocket(
        kubelet, "shell", ["sh", "-c", "echo out; echo err >&2; exit 3"], protocol=protocol
    )
    assert (out, err) == (b"out\n", b"err\n")
    assert status["status"] == "Failure"
    assert {"reason": "ExitCode", "message": "3"} in status["details"]["causes"]
    _, _, well = await run_by_websocket(kubelet, "shell", ["true"], protocol=protocol)
    assert well["status"] == "Success"


async def test_exec_by_websocket_v5_closes_stdin(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("count"))
    await kubelet.until("count", is_ready)
    out, _, status = await run_by_websocket(
        kubelet, "count", ["wc", "-c"], protocol="v5.channel.k8s.io", stdin=b"x" * 70_000
    )
    assert out.strip() == b"70000"
    assert status["status"] == "Success"


async def test_exec_with_a_terminal_knows_its_size(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("term"))
    await kubelet.until("term", is_ready)
    query = {"command": ["sh", "-c", "sleep 0.3; stty size"], "stdout": 1, "stdin": 1, "tty": 1}
    out = bytearray()
    url = url_of(kubelet, "/exec/default/term/app", **query)
    async with session_of(kubelet) as session, session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket:
        await socket.send_bytes(b"\x04" + b'{"Width":132,"Height":43}')
        async for message in socket:
            if message.data[0] == 1:
                out += message.data[1:]
    assert out.strip() == b"43 132"


@asynccontextmanager
async def spdy_of(kubelet: RunningKubelet, url: str, protocol: str) -> AsyncIterator[Session]:
    """A SPDY session with the kubelet, as an old kubectl has it."""
    reader, writer, chosen = await dial(url, protocols=[protocol], tls=tls_of(kubelet))
    assert chosen == protocol
    session = Session(reader, writer, client=True)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(session.run())
        try:
            yield session
        finally:
            await session.close()
            reading.cancel()


async def test_exec_by_spdy_passes_everything_and_closes_stdin(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("old"))
    await kubelet.until("old", is_ready)
    query = {"command": ["sh", "-c", "wc -c; echo bad >&2; exit 4"], "input": 1, "output": 1, "error": 1}
    url = url_of(kubelet, "/exec/default/old/app", **query)
    async with spdy_of(kubelet, url, "v4.channel.k8s.io") as session:
        streams: dict[str, Stream] = {}
        for kind in ("error", "stdin", "stdout", "stderr"):
            streams[kind] = await session.open({"streamtype": kind})
        await streams["stdin"].write(b"y" * 200_000)
        await streams["stdin"].close_write()
        out = await streams["stdout"].read_all(1000)
        err = await streams["stderr"].read_all(1000)
        status = json.loads(await streams["error"].read_all(10_000))
    assert out.strip() == b"200000"
    assert err == b"bad\n"
    assert status["details"]["causes"][0]["message"] == "4"


async def test_attach_hears_what_the_container_says(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("voice", "sh", "-c", "while sleep 0.05; do echo tick; done", grace=1))
    await kubelet.until("voice", is_ready)
    url = url_of(kubelet, "/attach/default/voice/app", stdout=1, stderr=1)
    async with session_of(kubelet) as session, session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket:
        async for message in socket:
            if message.data[0] == 1 and message.data[1:]:
                assert message.data[1:].startswith(b"tick\n")
                break


async def test_attach_without_a_terminal_to_a_container_with_one_ends_with_it(kubelet: RunningKubelet) -> None:
    pod = make_pod("screen", "sh", "-c", "sleep 0.7; echo bye", grace=1, restart="Never")
    container = pod.spec.containers[0]
    container.tty = container.stdin = container.stdinOnce = True
    await kubelet.create(pod)
    await kubelet.until("screen", is_ready)
    url = url_of(kubelet, "/attach/default/screen/app", stdin=1, stdout=1, stderr=1)
    said = b""
    async with session_of(kubelet) as session, session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket:
        async with asyncio.timeout(5):
            async for message in socket:
                said += message.data[1:] if message.data[0] == 1 else b""
    assert b"bye" in said


async def test_port_forward_by_spdy_and_by_websocket(kubelet: RunningKubelet) -> None:
    await kubelet.create(
        make_pod("site", "sh", "-c", "mkdir /tmp/w; echo hi > /tmp/w/x; exec httpd -f -p 8080 -h /tmp/w", grace=1)
    )
    await kubelet.until("site", is_ready)
    await asyncio.sleep(0.2)
    request = b"GET /x HTTP/1.0\r\n\r\n"
    url = url_of(kubelet, "/portForward/default/site")
    async with spdy_of(kubelet, url, "portforward.k8s.io") as session:
        headers = {"port": "8080", "requestid": "0"}
        await (await session.open({"streamtype": "error", **headers})).close_write()
        data = await session.open({"streamtype": "data", **headers})
        await data.write(request)
        assert b"200 OK" in await data.read_all(1000)
    url = url_of(kubelet, "/portForward/default/site", ports=8080)
    answer = bytearray()
    async with session_of(kubelet) as http, http.ws_connect(url, protocols=["v4.channel.k8s.io"]) as socket:
        first = (await socket.receive()).data
        second = (await socket.receive()).data
        assert {first, second} == {b"\x00\x90\x1f", b"\x01\x90\x1f"}
        await socket.send_bytes(b"\x00" + request)
        async for message in socket:
            answer += message.data[1:]
            if b"hi\n" in answer:
                break
    assert b"200 OK" in answer


async def test_strangers_are_turned_away(kubelet: RunningKubelet, tmp_path: object) -> None:
    await kubelet.create(make_pod("secretive"))
    await kubelet.until("secretive", is_ready)
    bare = ssl.create_default_context(cafile=str(kubelet.pki.ca))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=bare)) as session,
        session.get(url_of(kubelet, "/pods")) as response,
        session.get(url_of(kubelet, "/healthz")) as healthy,
    ):
        assert response.status == 401
        assert healthy.status == 200
    with pytest.raises(UpgradeRefused) as refused:
        await dial(
            url_of(kubelet, "/exec/default/secretive/app", command="id", output=1),
            protocols=["v4.channel.k8s.io"],
            tls=bare,
        )
    assert refused.value.status == 401


async def test_pods_and_metrics_are_shown(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("shown"))
    await kubelet.until("shown", is_ready)
    async with session_of(kubelet) as session:
        async with session.get(url_of(kubelet, "/pods")) as response:
            pods = await response.json()
        async with session.get(url_of(kubelet, "/metrics")) as response:
            metrics = await response.text()
        async with session.get(url_of(kubelet, "/stats/summary")) as response:
            summary = await response.json()
    assert [p["metadata"]["name"] for p in pods["items"]] == ["shown"]
    assert pods["items"][0]["status"]["phase"] == "Running"
    assert "kubelet_running_pods 1.0" in metrics
    assert summary["pods"][0]["podRef"]["name"] == "shown"


async def test_grpc_face_explains_and_executes(kubelet: RunningKubelet) -> None:
    await kubelet.create(make_pod("asked"))
    await kubelet.until("asked", is_ready)
    tls = TLSFiles(kubelet.pki.client_cert, kubelet.pki.client_key, kubelet.pki.ca)
    async with channel(f"127.0.0.1:{kubelet.kubelet.grpc_server.port}", tls, server_name="localhost") as dialled:
        stub = KubeletServiceStub(dialled)
        listed = await stub.ListPods(kubelet_pb2.ListPodsRequest())
        assert [pod.metadata.name for pod in listed.pods] == ["asked"]
        explained = await stub.ExplainPod(kubelet_pb2.ExplainPodRequest(namespace="default", name="asked"))
        assert [c.phase for c in explained.containers] == ["running"]
        assert list(explained.actions) == []
        start = kubelet_pb2.ExecStart(
            namespace="default", pod="asked", container="app", command=["sh", "-c", "cat; exit 6"], stdin=True
        )

        async def requests() -> AsyncIterator[kubelet_pb2.ExecRequest]:
            yield kubelet_pb2.ExecRequest(start=start)
            yield kubelet_pb2.ExecRequest(stdin=b"echoed")
            yield kubelet_pb2.ExecRequest(close_stdin=True)

        replies = [reply async for reply in stub.Exec(requests())]
        assert b"".join(r.stdout for r in replies) == b"echoed"
        assert replies[-1].exit_code == 6
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.ExplainPod(kubelet_pb2.ExplainPodRequest(namespace="default", name="none"))
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_certificate_of_another_authority_is_refused(kubelet: RunningKubelet) -> None:
    other = CertificateAuthority.create("other").issue("system:admin", organizations=["system:masters"], client=True)
    folder = kubelet.pki.ca.parent
    other.write(folder / "other.crt", folder / "other.key")
    context = ssl.create_default_context(cafile=str(kubelet.pki.ca))
    context.load_cert_chain(folder / "other.crt", folder / "other.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(url_of(kubelet, "/pods"))


async def test_J1_figures_of_containers_and_pods_equal_their_cgroups(kubelet: RunningKubelet) -> None:
    # So much memory and time that what the kernel counts late is no matter.
    hold = "x=$(head -c 16000000 /dev/zero | tr '\\0' x)"
    burn = f"{hold}; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo resting; sleep 1000 & wait"
    pod = make_pod("burner", "sh", "-c", burn)
    await kubelet.create(pod)
    running = await kubelet.until("burner", is_running)
    container = running.status.containerStatuses[0].containerID.partition("://")[2]
    group = kubelet.kubelet.cgroups.parent(running)
    files = CgroupFiles()

    def counted() -> Reading:
        reading = files.read(f"{group}/{container}", 0)
        assert reading is not None
        return reading

    # Until it sleeps: what is compared is read at two moments.
    said = ""
    while "resting" not in said:
        await asyncio.sleep(0.1)
        said = await read_log(kubelet, "burner")
    before = -1
    while (now := counted().cpu_ns) != before:
        before = now
        await asyncio.sleep(0.2)
    async with session_of(kubelet) as session:
        async with session.get(url_of(kubelet, "/metrics/cadvisor")) as response:
            cadvisor = await response.text()
        async with session.get(url_of(kubelet, "/metrics/resource")) as response:
            resource = await response.text()
        async with session.get(url_of(kubelet, "/stats/summary", only_cpu_and_memory="true")) as response:
            summary = await response.json()
    assert value_of(cadvisor, "container_cpu_usage_seconds_total", "app") == pytest.approx(now / 1e9, rel=0.05)
    working_set = value_of(cadvisor, "container_memory_working_set_bytes", "app")
    assert working_set == pytest.approx(counted().working_set_bytes, rel=0.05)
    assert value_of(resource, "container_cpu_usage_seconds_total", "app") == pytest.approx(now / 1e9, rel=0.05)
    assert "resource_scrape_error 0.0" in resource
    (told,) = [one for one in summary["pods"] if one["podRef"]["name"] == "burner"]
    # The pod's group holds the sandbox too.
    assert told["cpu"]["usageCoreNanoSeconds"] >= now
    assert told["memory"]["workingSetBytes"] > 0
    assert told["containers"][0]["cpu"]["usageNanoCores"] < 500_000_000
    assert summary["node"]["cpu"]["usageCoreNanoSeconds"] > 0


def value_of(text: str, metric: str, container: str) -> float:
    """One sample in Prometheus' form."""
    wanted = f'container="{container}"'
    (line,) = [one for one in text.splitlines() if one.startswith(f"{metric}{{") and wanted in one]
    return float(line.rpartition("}")[2].split()[0])
