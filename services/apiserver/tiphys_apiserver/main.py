"""Starts the API server: builds its parts in order, and takes them down in the reverse one."""

from __future__ import annotations

import asyncio
import gc
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.options import Options
from tiphys_apiserver.rest.revision_path import add_revision_path
from tiphys_apiserver.server.assembly import Assembly, Foundation, assemble
from tiphys_apiserver.server.flow_control.dangling import DanglingConditions
from tiphys_apiserver.storage.compactor import Compactor
from tiphys_apiserver.storage.interface import StorageError, Store
from tiphys_apiserver.storage.measured_store import MeasuredStore, Place, read_place
from tiphys_apiserver.storage.moments import Moments
from tiphys_component import app, log
from tiphys_component.app import StartupError, start_loop
from tiphys_component.clock import Clock, SystemClock
from tiphys_component.health import Health, NotReady
from tiphys_component.metrics import Registry
from tiphys_component.options import parse
from tiphys_component.proc import quiet_collector
from tiphys_component.tls import TLSFiles, client_ssl_context, grpc_channel_credentials, server_ssl_context

if TYPE_CHECKING:
    from tiphys_apiserver.encryption.store import EncryptedStore

NAME = "kube-apiserver"
_log = log.get_logger(NAME)

# From the end of the shutdown delay to the end of the process, and what of it requests in flight may take to finish.
_GRACE_S = 10.0
_DRAIN_S = 5.0


class ApiServer:
    """The service. `ports` and `ready` are for those who run it in their own process."""

    def __init__(self, options: Options, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        # Names and ids need not be hard to guess, only different: a generator seeded by the system will do.
        self._rng = rng or random.Random()
        self.ready = asyncio.Event()
        self.secure_port = 0
        self.grpc_port = 0
        self.grpc_token_port = 0

    async def run(self) -> None:
        """Serve until cancelled. Raises StartupError where something is missing or taken."""
        options = self._options
        serving = _serving_files(options)
        tls = server_ssl_context(serving)
        async with open_store(options, self._clock) as opened:
            metrics = Registry(process_metrics=True)
            measured = MeasuredStore(opened, self._clock, metrics, _places())
            encrypted = _encrypted(options, measured, self._clock, metrics)
            store: Store = encrypted or measured
            health = Health()
            _add_store_check(health, store)
            set_ready = health.gate("poststarthook/bootstrap")
            stopping = _Stopping()
            health.add_readiness("shutdown", stopping.check)
            base = Foundation(
                options=options,
                store=store,
                clock=self._clock,
                health=health,
                metrics=metrics,
                kubelet_tls=_kubelet_tls(options),
                new_uid=uid_maker(self._rng),
                rng=self._rng,
            )
            parts = assemble(base)
            async with asyncio.TaskGroup() as group:
                parts.table.start(group)
                parts.aggregator.start(group, parts.table)
                self._start_history(store, parts, group)
                if encrypted is not None:
                    start_loop(group, encrypted.run(), "encryption")
                for trail in parts.auditor.trails if parts.auditor is not None else ():
                    start_loop(group, trail.run(), "audit")
                await parts.rest.listen(options.hosts(), options.secure_port, tls)
                if options.insecure_port:
                    await parts.plain.listen(
                        (options.insecure_bind_address,), options.insecure_port, None, flag="--insecure-port"
                    )
                self.secure_port = parts.rest.ports[0]
                try:
                    await self._start(parts, serving, group)
                    set_ready()
                    self.ready.set()
                    quiet_collector()
                    _log.info("ready", port=self.secure_port, grpc_port=self.grpc_port, store=options.store)
                    await asyncio.get_running_loop().create_future()
                finally:
                    stopping.begin()
                    await self._leave(parts)
                    await _stop(parts)
                    # The group's own tasks end last: what was in flight read from their caches.

    async def _start(self, parts: Assembly, serving: TLSFiles, group: asyncio.TaskGroup) -> None:
        await parts.table.wait_ready()
        start_loop(group, parts.definitions.run(), "custom resources")
        await parts.bootstrap(self.secure_port)
        if self._options.grpc_port >= 0:
            from tiphys_apiserver.rpc.server import start_rpc

            parts.rpc = await start_rpc(parts, self._options, serving)
            self.grpc_port, self.grpc_token_port = parts.rpc.port, parts.rpc.token_port
        conditions = DanglingConditions(parts.objects, self._clock)
        start_loop(group, conditions.run(), "conditions of flow schemas")
        if parts.kubernetes_service is not None:
            start_loop(group, parts.kubernetes_service.run(), "kubernetes service")

    def _start_history(self, store: Store, parts: Assembly, group: asyncio.TaskGroup) -> None:
        history_s = self._options.history_s
        moments = Moments(store, self._clock, history_s=history_s)
        add_revision_path(parts.paths, moments, self._clock)
        start_loop(group, moments.run(), "moments")
        start_loop(group, Compactor(store, self._clock, interval_s=history_s).run(), "compaction")

    async def _leave(self, parts: Assembly) -> None:
        """Serve on for a while, so that whoever spreads requests over several servers sees that this one is unready."""
        parts.chain.leave()
        if self._options.shutdown_delay_s:
            _log.info("unready, serving on", seconds=self._options.shutdown_delay_s)
            await self._clock.sleep(self._options.shutdown_delay_s)


class _Stopping:
    """Makes the server unready once it has been told to stop."""

    def __init__(self) -> None:
        self._begun = False

    def begin(self) -> None:
        self._begun = True

    def check(self) -> None:
        if self._begun:
            raise NotReady("process is shutting down")


async def _stop(parts: Assembly) -> None:
    """Refuse new requests, end watches, let the others finish."""
    parts.chain.stop()
    parts.resources.end_watches()
    if parts.rpc is not None:
        await parts.rpc.stop()
    await parts.rest.close(_DRAIN_S)
    await parts.plain.close(_DRAIN_S)
    await parts.webhooks.close()
    for client in parts.clients:
        await client.close()


def uid_maker(rng: random.Random) -> Callable[[], str]:
    """Makes random UUIDs (version 4) as text; a system call for each would cost ten times as much."""

    def new_uid() -> str:
        number = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    return new_uid


@asynccontextmanager
async def open_store(options: Options, clock: Clock) -> AsyncIterator[Store]:
    """The store that the options name, closed at the end. Raises StartupError."""
    if options.store == "etcd":
        from tiphys_apiserver.storage.etcd.connection import EtcdOptions
        from tiphys_apiserver.storage.etcd.store import open_etcd

        etcd = EtcdOptions(
            endpoints=[url.rpartition("://")[2].rstrip("/") for url in options.etcd_servers],
            credentials=_etcd_credentials(options),
            root=f"{options.etcd_prefix.rstrip('/')}/",
        )
        try:
            async with open_etcd(etcd, clock) as opened:
                yield opened
        except StorageError as err:
            raise _store_trouble(err, "see that etcd runs and that --etcd-servers names it") from err
        return
    if options.store == "memory":
        from tiphys_apiserver.storage.memory.store import MemoryStore

        memory = MemoryStore(clock)
        try:
            yield memory
        finally:
            await memory.close()
        return
    from tiphys_apiserver.storage.sqlite.store import SqliteStore

    try:
        sqlite = await SqliteStore.open(options.store_file, clock)
    except (StorageError, OSError) as err:
        raise _store_trouble(err, "free the file, or give another with --store-file") from err
    try:
        yield sqlite
    finally:
        await sqlite.close()


def _places() -> Callable[[str], Place]:
    """Which resource lies under a key."""
    places = {f"{info.storage_key_prefix}/": (info.group, info.plural) for info in load_default().resources()}

    def place_of(key: str) -> Place:
        for end in (key.find("/", key.find("/", 1) + 1), key.find("/", key.find("/", key.find("/", 1) + 1) + 1)):
            found = places.get(key[: end + 1])
            if found is not None:
                return found
        return read_place(key)

    return place_of


def _encrypted(options: Options, store: Store, clock: Clock, metrics: Registry) -> EncryptedStore | None:
    """The store with encryption in front; None, and nothing imported, where none is asked for."""
    if options.encryption_provider_config is None:
        return None
    from tiphys_apiserver.encryption.build import build_encryption

    return build_encryption(options, options.encryption_provider_config, store, clock=clock, metrics=metrics)


def _etcd_credentials(options: Options) -> grpc.ChannelCredentials | None:
    if not any(url.startswith("https://") for url in options.etcd_servers):
        return None
    return grpc_channel_credentials(TLSFiles(options.etcd_certfile, options.etcd_keyfile, options.etcd_cafile))


def _store_trouble(err: Exception, advice: str) -> StartupError:
    return StartupError(f"the store can't be used: {err}", advice)


def _add_store_check(health: Health, store: Store) -> None:
    async def check() -> None:
        await store.revision()

    health.add_liveness("ping", lambda: None)
    health.add_readiness("etcd", check)


def _serving_files(options: Options) -> TLSFiles:
    cert, key = options.tls_cert_file, options.tls_private_key_file
    if cert is None or key is None:
        raise StartupError(
            "no certificate to serve with",
            "give --tls-cert-file and --tls-private-key-file; `tiphys up` makes them",
        )
    proxies = options.requestheader_client_ca_file
    return TLSFiles(cert, key, options.client_ca_file, () if proxies is None else (proxies,))


def _kubelet_tls(options: Options) -> ssl.SSLContext:
    cert, key = options.kubelet_client_certificate, options.kubelet_client_key
    files = TLSFiles(cert, key, options.kubelet_certificate_authority)
    context = client_ssl_context(files)
    if options.kubelet_certificate_authority is None:
        # As kube-apiserver without the flag: the kubelet's certificate is taken unseen.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server with these flags until a signal; the exit code."""
    # What a start makes stays: looking through it is in vain. Set right when the server is ready; also after a fork,
    # which does not come by __main__.
    gc.disable()
    options = parse(Options, argv, prog=NAME)
    log.configure(options.log_level, options.log_format)
    grace_s = _GRACE_S + options.shutdown_delay_s
    return app.run(lambda: ApiServer(options).run(), name=NAME, grace_s=grace_s)
