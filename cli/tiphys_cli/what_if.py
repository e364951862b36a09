"""tiphys what-if"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click
from google.protobuf.json_format import MessageToDict

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys.scheduler.v1 import scheduler_pb2
from tiphys_apimachinery.codec import json_codec, yaml_codec
from tiphys_apimachinery.errors import APIError, BadRequest
from tiphys_cli.console import fail, run
from tiphys_cli.options import name_option, run_root_option
from tiphys_client.kubeconfig import load
from tiphys_client.transport import GrpcTransport
from tiphys_cluster.api import Api, api_of
from tiphys_cluster.choices import layout_for
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.status import read_status

_SERVICE = "tiphys.scheduler.v1.SchedulerService"
_TIMEOUT_S = 30.0
_EXAMPLE = "Write pods as for `kubectl create -f`; `kubectl run NAME --image=IMAGE --dry-run=client -o yaml` makes one"


@click.command("what-if")
@click.option("-f", "--filename", type=click.File("rb"), required=True, help="Pods in YAML or JSON; - is the input.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of pods that name none.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@name_option
@run_root_option
def command(*, filename: BinaryIO, namespace: str, output: str, name: str, run_root: Path) -> None:
    """Say where pods that do not exist yet would go, each beside those before it. Nothing is created."""
    try:
        pods = list(read_pods(filename.read(), namespace))
    except BadRequest as err:
        fail(ClusterError(f"{filename.name}: {err}", _EXAMPLE))
    try:
        reply = run(_ask(pods, name, run_root))
    except APIError as err:
        fail(ClusterError(f"the scheduler has no answer: {err}", "`tiphys status` shows whether it runs"))
    if output == "json":
        click.echo(json.dumps(MessageToDict(reply), indent=2))
        return
    for line in table_lines(reply.outcomes):
        click.echo(line)


def read_pods(text: bytes, namespace: str) -> Iterator[dict[str, Any]]:
    """The pods of a file, also those in lists, each with a namespace. Raises BadRequest for anything else."""
    seen: set[tuple[str, str]] = set()
    documents = yaml_codec.parse_all(text)
    if not documents:
        raise BadRequest("there is no pod in it")
    for item in _items(documents):
        kind = item.get("kind") if isinstance(item, Mapping) else None
        if kind != "Pod" or item.get("apiVersion") != "v1":
            raise BadRequest(f"only pods can be tried, this is {kind or 'no object'}")
        metadata = item.get("metadata")
        if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("generateName")):
            raise BadRequest("a pod has no name")
        pod = {**item, "metadata": {"namespace": namespace, **metadata}}
        key = (str(pod["metadata"]["namespace"]), str(metadata.get("name", "")))
        if key[1] and key in seen:
            raise BadRequest(f"pod {'/'.join(key)} is there twice")
        seen.add(key)
        yield pod


def _items(documents: Sequence[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, Mapping) and str(document.get("kind", "")).endswith("List"):
            items = document.get("items") or ()
            yield from items if isinstance(items, list) else (items,)
        else:
            yield document


async def _ask(pods: Sequence[Mapping[str, Any]], name: str, run_root: Path) -> scheduler_pb2.WhatIfResponse:
    layout = layout_for(name, None, run_root)
    settings = (await read_status(layout)).settings
    api = api_of(layout, settings)
    request = scheduler_pb2.WhatIfRequest(pods=[await complete(api, pod) for pod in pods])
    address = f"127.0.0.1:{settings.ports.scheduler_grpc}"
    transport = GrpcTransport(replace(load(layout.admin_conf), grpc_address=address))
    try:
        raw = await transport.unary(_SERVICE, "WhatIf", request.SerializeToString(), timeout_s=_TIMEOUT_S)
    finally:
        await transport.close()
    return scheduler_pb2.WhatIfResponse.FromString(raw)


async def complete(api: Api, pod: Mapping[str, Any]) -> Pod:
    """The pod as the API server would store it: with defaults, and what admission adds. Raises ClusterError."""
    namespace = str(pod["metadata"]["namespace"])
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods?dryRun=All&fieldValidation=Strict"
    code, answer = await api.ask("POST", path, pod)
    if code != 201:
        named = pod["metadata"].get("name") or pod["metadata"].get("generateName")
        raise ClusterError(
            f"pod {namespace}/{named} would be refused: {answer.get('message') or f'code {code}'}",
            "Put the pod right, or try another with -f",
        )
    return json_codec.from_json(Pod, answer)


def table_lines(outcomes: Sequence[scheduler_pb2.Outcome]) -> Iterator[str]:
    """Columns as kubectl shows them, three spaces between."""
    rows = [("NAMESPACE", "NAME", "NODE", "SCORE", "MESSAGE")]
    for item in outcomes:
        placed = (item.node, str(item.score)) if item.node else ("<none>", "<none>")
        rows.append((item.namespace, item.name, *placed, _message(item)))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _message(item: scheduler_pb2.Outcome) -> str:
    if not item.victims:
        return item.message
    return f"{item.message} It would fit were these gone, which it may preempt: {', '.join(item.victims)}"
