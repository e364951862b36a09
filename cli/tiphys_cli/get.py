"""tiphys get: objects as they were at a past moment. Those of now are kubectl's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from tiphys_cli.console import fail, run
from tiphys_cli.options import name_option, run_root_option
from tiphys_cluster.api import Api, api_of
from tiphys_cluster.choices import layout_for
from tiphys_cluster.errors import ClusterError
from tiphys_cluster.status import read_status

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_AGO = re.compile(r"(\d+)\s*([a-z]+?)s?\s+ago")
_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}


@click.command("get")
@click.argument("kind")
@click.argument("object_name", metavar="[NAME]", default="")
@click.option("--at", "at", required=True, help="The moment: '10 min ago', or 2026-01-31T12:00:00Z.")
@click.option("-n", "--namespace", default="default", show_default=True, help="The objects' namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@name_option
@run_root_option
def command(*, kind: str, object_name: str, at: str, output: str, name: str, run_root: Path, **where: Any) -> None:
    """Show objects as they were at a moment of the last minutes (the API server's --history)."""
    try:
        moment = read_moment(at, datetime.now(UTC))
    except ValueError as err:
        fail(ClusterError(str(err), "Write --at '10 min ago' or --at 2026-01-31T12:00:00Z"))
    namespace = "" if where["all_namespaces"] else where["namespace"]
    answer = run(_ask(kind, object_name, moment, namespace=namespace, output=output, of=(name, run_root)))
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
        return
    for line in table_lines(answer, with_namespace=where["all_namespaces"]):
        click.echo(line)


def read_moment(text: str, now: datetime) -> datetime:
    """A moment of the calendar, or so long ago. Raises ValueError."""
    ago = _AGO.fullmatch(text.strip().lower())
    if ago is not None and ago[2] in _UNITS:
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as err:
        raise ValueError(f"--at {text!r} is no moment") from err
    return moment if moment.tzinfo is not None else moment.astimezone()


async def _ask(
    kind: str, object_name: str, moment: datetime, *, namespace: str, output: str, of: tuple[str, Path]
) -> dict[str, Any]:
    layout = layout_for(of[0], None, of[1])
    api = api_of(layout, (await read_status(layout)).settings)
    revision = (await _get(api, f"/revisions?{urlencode({'at': moment.isoformat()})}"))["resourceVersion"]
    groups = [await _get(api, root, accept=_DISCOVERY) for root in ("/api", "/apis")]
    found = next(find_resource(kind, groups), None)
    if found is None:
        raise ClusterError(f"the server has no resource {kind!r}", "`kubectl api-resources` lists them")
    base, resource = found
    is_namespaced = resource.get("scope") == "Namespaced"
    inside = f"/namespaces/{quote(namespace)}" if is_namespaced and namespace else ""
    query = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
    if object_name:
        query["fieldSelector"] = f"metadata.name={object_name}"
    path = f"{base}{inside}/{resource['resource']}?{urlencode(query)}"
    return await _get(api, path, accept=_TABLE if output == "table" else "application/json")


async def _get(api: Api, path: str, *, accept: str = "application/json") -> dict[str, Any]:
    code, answer = await api.ask("GET", path, accept=accept)
    if code != 200:
        hint = "Ask for a later moment, or start the API server with a longer --history" if code == 410 else ""
        raise ClusterError(str(answer.get("message") or f"{path}: code {code}"), hint)
    return answer


def find_resource(kind: str, documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Resources that a word names, as kubectl takes it, the preferred first: base path, and discovery's entry."""
    wanted, _, group_wanted = kind.lower().partition(".")
    for document in documents:
        for group in document.get("items", ()):
            group_name = group.get("metadata", {}).get("name", "")
            if group_wanted and group_wanted != group_name:
                continue
            for version in group.get("versions", ()):
                base = f"/apis/{group_name}/{version['version']}" if group_name else f"/api/{version['version']}"
                for resource in version.get("resources", ()):
                    if wanted in _words(resource):
                        yield base, resource


def _words(resource: Mapping[str, Any]) -> set[str]:
    names = {resource["resource"], resource.get("singularResource", ""), *resource.get("shortNames", ())}
    return names | {resource.get("responseKind", {}).get("kind", "").lower()}


def table_lines(table: Mapping[str, Any], *, with_namespace: bool) -> Iterator[str]:
    """The columns that kubectl shows, three spaces between."""
    shown = [(number, column) for number, column in enumerate(table["columnDefinitions"]) if not column.get("priority")]
    rows = [[column["name"].upper() for _, column in shown]]
    rows += [[str(row["cells"][number]) for number, _ in shown] for row in table["rows"]]
    if with_namespace:
        names = [row.get("object", {}).get("metadata", {}).get("namespace", "") for row in table["rows"]]
        rows = [[first, *row] for first, row in zip(["NAMESPACE", *names], rows, strict=True)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
