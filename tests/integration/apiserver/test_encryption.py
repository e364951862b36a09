"""Rows H5, H17: Secrets lie encrypted in the store, keys can be changed, and a lost key hides nothing else."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from tests.support.apiserver import RunningServer, running_server
from tiphys.thirdparty.kms.v2 import api_pb2
from tiphys_apiserver.storage.sqlite.store import SqliteStore
from tiphys_component.clock import SystemClock

_SECRETS = "/api/v1/namespaces/default/secrets"
_KEYS = {name: base64.b64encode(name.encode() * 8).decode() for name in ("key1", "key2")}


def _provider(kind: str, *names: str) -> dict[str, Any]:
    return {kind: {"keys": [{"name": name, "secret": _KEYS[name]} for name in names]}}


def _options(folder: Path, *providers: dict[str, Any]) -> Mapping[str, Any]:
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": list(providers)}],
    }
    path = folder / "encryption.yaml"
    path.write_text(yaml.safe_dump(document))
    return {"encryption_provider_config": path, "store": "sqlite", "store_file": folder / "tiphys.db"}


async def _create(server: RunningServer, name: str) -> None:
    body = {"metadata": {"name": name}, "stringData": {"password": f"hunter2-of-{name}"}}
    assert (await server.http("POST", _SECRETS, body)).status == 201


async def _passwords(server: RunningServer) -> dict[str, str]:
    items = (await server.http("GET", _SECRETS)).json()["items"]
    return {item["metadata"]["name"]: base64.b64decode(item["data"]["password"]).decode() for item in items}


async def _stored(folder: Path) -> dict[str, bytes]:
    """What lies in the store, as who steals the file sees it."""
    store = await SqliteStore.open(folder / "tiphys.db", SystemClock())
    try:
        page = await store.list("/registry/secrets/default/")
        return {item.key.rpartition("/")[2]: item.value for item in page.items}
    finally:
        await store.close()


def _all_files(folder: Path) -> bytes:
    """Every byte of the store's files."""
    files = list(folder.glob("tiphys.db*"))
    assert files
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize("kind", ["aescbc", "aesgcm", "secretbox"])
async def test_H5_store_shows_no_plaintext(kind: str, tmp_path: Path) -> None:
    async with running_server(**_options(tmp_path, _provider(kind, "key1"), {"identity": {}})) as server:
        await _create(server, "a")
        assert await _passwords(server) == {"a": "hunter2-of-a"}
        reply = await server.http("GET", f"{_SECRETS}/a", user="alice")
        assert reply.status == 403
        changed = {"stringData": {"password": "changed"}}
        reply = await server.http(
            "PATCH", f"{_SECRETS}/a", changed, content_type="application/strategic-merge-patch+json"
        )
        assert reply.status == 200
        assert await _passwords(server) == {"a": "changed"}
        await _create(server, "b")
        assert (await server.http("DELETE", f"{_SECRETS}/b")).status == 200

    assert (await _stored(tmp_path))["a"].startswith(f"k8s:enc:{kind}:v1:key1:".encode())
    assert b"hunter2" not in _all_files(tmp_path)


async def test_H17_key_is_changed_and_old_values_are_written_anew(tmp_path: Path) -> None:
    async with running_server(store="sqlite", store_file=tmp_path / "tiphys.db") as server:
        await _create(server, "plain")
    first = _options(tmp_path, _provider("aescbc", "key1"), {"identity": {}})
    async with running_server(**first) as server:
        await _create(server, "first")
        assert await _passwords(server) == {"plain": "hunter2-of-plain", "first": "hunter2-of-first"}
    second = _options(tmp_path, _provider("aesgcm", "key2"), _provider("aescbc", "key1"), {"identity": {}})
    async with running_server(**second) as server:
        await _create(server, "second")
        assert len(await _passwords(server)) == 3

    stored = await _stored(tmp_path)
    assert set(stored) == {"plain", "first", "second"}
    assert all(value.startswith(b"k8s:enc:aesgcm:v1:key2:") for value in stored.values())
    async with running_server(**_options(tmp_path, _provider("aesgcm", "key2"))) as server:
        assert len(await _passwords(server)) == 3


async def test_H17_value_whose_key_is_lost_is_left_out_and_hides_nothing_else(tmp_path: Path) -> None:
    async with running_server(**_options(tmp_path, _provider("aesgcm", "key1"))) as server:
        await _create(server, "lost")
    async with running_server(**_options(tmp_path, _provider("aesgcm", "key2"), {"identity": {}})) as server:
        await _create(server, "kept")
        assert await _passwords(server) == {"kept": "hunter2-of-kept"}
        metrics = (await server.http("GET", "/metrics")).body.decode()
        counted = next(line for line in metrics.splitlines() if line.startswith("apiserver_storage_decryption"))
        assert float(counted.split()[-1]) >= 1
    # The value is untouched: with its key it is there again.
    both = _options(tmp_path, _provider("aesgcm", "key2", "key1"))
    async with running_server(**both) as server:
        assert set(await _passwords(server)) == {"kept", "lost"}


class _Kms:
    """A KMS plugin in a few lines, over the published contract. It "seals" by turning bytes over."""

    def __init__(self) -> None:
        self.key_id = "one"
        self.asked: list[str] = []

    async def status(self, request: Any, context: Any) -> api_pb2.StatusResponse:
        return api_pb2.StatusResponse(version="v2", healthz="ok", key_id=self.key_id)

    async def encrypt(self, request: Any, context: Any) -> api_pb2.EncryptResponse:
        self.asked.append("Encrypt")
        sealed = bytes(byte ^ 0xFF for byte in request.plaintext)
        return api_pb2.EncryptResponse(ciphertext=sealed, key_id=self.key_id, annotations={"a.b": b"1"})

    async def decrypt(self, request: Any, context: Any) -> api_pb2.DecryptResponse:
        self.asked.append("Decrypt")
        assert dict(request.annotations) == {"a.b": b"1"}
        return api_pb2.DecryptResponse(plaintext=bytes(byte ^ 0xFF for byte in request.ciphertext))

    def handler(self) -> Any:
        def unary(method: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=request.FromString,
                response_serializer=lambda made: made.SerializeToString(),
            )

        methods = {
            "Status": unary(self.status, api_pb2.StatusRequest),
            "Encrypt": unary(self.encrypt, api_pb2.EncryptRequest),
            "Decrypt": unary(self.decrypt, api_pb2.DecryptRequest),
        }
        return grpc.method_handlers_generic_handler("v2.KeyManagementService", methods)


@asynccontextmanager
async def _running(plugin: _Kms, socket: Path) -> AsyncIterator[None]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((plugin.handler(),))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _kms(socket: Path) -> dict[str, Any]:
    return {"kms": {"apiVersion": "v2", "name": "mine", "endpoint": f"unix://{socket}", "timeout": "2s"}}


async def test_H17_kms_plugin_keeps_the_key_and_is_asked_once_for_many_objects(tmp_path: Path) -> None:
    plugin, socket = _Kms(), tmp_path / "kms.sock"
    options = _options(tmp_path, _kms(socket), {"identity": {}})
    async with _running(plugin, socket):
        async with running_server(**options) as server:
            for name in ("a", "b", "c"):
                await _create(server, name)
            assert len(await _passwords(server)) == 3
        assert plugin.asked == ["Encrypt"]
        stored = await _stored(tmp_path)
        assert all(value.startswith(b"k8s:enc:kms:v2:mine:") for value in stored.values())
        assert b"hunter2" not in _all_files(tmp_path)
        plugin.asked.clear()
        async with running_server(**options) as server:
            assert len(await _passwords(server)) == 3
        assert plugin.asked == ["Decrypt"]


async def test_H17_write_is_refused_while_the_kms_plugin_is_away(tmp_path: Path) -> None:
    plugin, socket = _Kms(), tmp_path / "kms.sock"
    async with running_server(**_options(tmp_path, _kms(socket), {"identity": {}})) as server:
        body = {"metadata": {"name": "a"}}
        refused = await server.http("POST", _SECRETS, body)
        assert refused.status == 503
        assert (await server.http("POST", "/api/v1/namespaces/default/configmaps", body)).status == 201
        async with _running(plugin, socket):
            async with asyncio.timeout(8):
                while True:
                    if (await server.http("POST", _SECRETS, body)).status == 201:
                        break
                    await asyncio.sleep(0.1)
