"""Requests that no friend would send: objects that fit their schema by chance, paths, queries and headers at odds."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson
from google.protobuf.descriptor import Descriptor

from tiphys_apimachinery.schema import Field, Kind, descriptor_of, fields_of
from tiphys_apimachinery.scheme import ResourceInfo

TEXTS: Sequence[str] = (
    *("", "a", "web", "default", "kube-system", "x" * 70, "x" * 300, "Not_Good", "-a", "a-", "a..b", "..", ".", "/"),
    *("a/b", "../../etc/passwd", "%2e%2e", "a b", "a\nb", "\x00", "\x7f", "é", "日本", "\U0001f600", "\u202e", "ﷺ"),
    *("*", "0", "-1", "1.5", "1e99", "NaN", "true", "null", "{}", "[]", "'", '"', "\\", "$(A)", "{{.x}}", "self.x > 1"),
    *("10.0.0.1", "300.1.1.1", "::1", "10.0.0.0/8", "2001:db8::/129", "0.0.0.0/0", "10.96.0.10", "a.b.c.d.e"),
    *(
        "1",
        "100m",
        "1Gi",
        "9" * 40,
        "1e400",
        "-5",
        "0x10",
        "2024-01-01T00:00:00Z",
        "9999-99-99T99:99:99Z",
        "1h",
        "99999h",
    ),
    *("Always", "Never", "TCP", "SCTP", "ClusterIP", "ExternalName", "None", "In", "Exists", "Equal", "NoSchedule"),
    *(
        "example.com/a",
        "kubernetes.io/x",
        "system:masters",
        "cluster-admin",
        "*/5 * * * *",
        "@every 1s",
        "a=b",
        "a in (b",
    ),
)
NUMBERS: Sequence[Any] = (0, 1, -1, 2, 80, 443, 65535, 65536, 30000, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1)
NUMBERS = (*NUMBERS, 2**63, -(2**63), 2**64, 0.5, -0.0, 1e308, 1e-308)
_ENUM = ("Pod", "Service", "v1", "apps/v1", "Deployment", "ReplicaSet", "Utilization", "Resource", "RollingUpdate")

_DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers")
_SUBRESOURCES = ("status", "scale", "log", "exec", "binding", "eviction", "proxy", "token")
_QUERY_NAMES = (
    *("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch"),
    *("fieldManager", "fieldValidation", "force", "pretty", "timeoutSeconds", "sendInitialEvents", "dryRun"),
    *("allowWatchBookmarks", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "timeout"),
    *("container", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "follow", "previous", "hash"),
    *("exclude", "includeObject", "command"),
)
_QUERY_VALUES = (
    *("a=b", "a in (b,c)", "!a", "a notin ()", "a,,b", "metadata.name=a", "metadata.name", "status.phase!=x"),
    *("All", "Exact", "NotOlderThan", "Strict", "Foreground", "Orphan", "true", "false", "0", "1", "500"),
    *("9" * 30, "-1", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", "e30", "%%%", "%ff%fe"),
    *("a" * 2000, "Metadata"),
)
_HEADERS: Mapping[str, Sequence[str]] = {
    "Accept": (
        *(
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "*/*",
            "text/html",
            ";;;",
        ),
        *(
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ),
        *("application/json;as=Nothing;v=v9;g=x", ",,,", "a/b;q=x", "application/json;q=0", "é"),
    ),
    "Accept-Encoding": ("gzip", "gzip;q=0", "identity", "br,*;q=0.1", ";;"),
    "Impersonate-User": ("", "alice", "system:serviceaccount:a:b", "system:serviceaccount:::", "\x01"),
    "Impersonate-Group": ("system:masters", ""),
    "Impersonate-Extra-%zz": ("a",),
    "If-None-Match": ('"x"', "W/", "*"),
    "If-Match": ('"x"',),
    "Range": ("bytes=0-1", "x"),
    "Content-Encoding": ("gzip", "br"),
    "X-Forwarded-For": ("1.2.3.4", "a" * 5000),
    "User-Agent": ("", "a" * 3000, "kubectl/v1.32"),
    "Upgrade": ("websocket", "SPDY/3.1", "h2c"),
    "Sec-WebSocket-Protocol": ("base64url.bearer.authorization.k8s.io.%%%", "v5.channel.k8s.io"),
    "Expect": ("100-continue", "x"),
    "Cookie": ("a=b; c",),
}


@dataclass(slots=True)
class Hostile:
    """Makes them; the same random numbers make the same ones."""

    rng: random.Random
    # How often a value is of the wrong type altogether, and how deep objects go.
    wrongness: float = 0.03
    depth: int = 9
    _budget: int = field(default=0)

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def junk(self, depth: int = 3) -> Any:
        """Any JSON value."""
        choice = self.rng.randrange(8 if depth else 6)
        if choice == 6:
            return [self.junk(depth - 1) for _ in range(self.rng.randrange(4))]
        if choice == 7:
            return {self.text(): self.junk(depth - 1) for _ in range(self.rng.randrange(4))}
        simple: Sequence[Callable[[], Any]] = (
            lambda: None, lambda: True, lambda: False, self.text, self.text, lambda: self.rng.choice(NUMBERS),
        )  # fmt: skip
        return simple[choice]()

    def object(self, info: ResourceInfo, name: str) -> Any:
        """An object of a kind, named so that it may be stored."""
        self._budget = 120
        made = self._message(descriptor_of(info.message), self.depth, keep=0.55)
        if isinstance(made, dict):
            metadata = made.get("metadata")
            if not isinstance(metadata, dict) or self.rng.random() < 0.8:
                metadata = made["metadata"] = {}
            if self.rng.random() < 0.95:
                metadata["name"] = name
            for known in ("uid", "resourceVersion", "deletionTimestamp", "namespace", "finalizers"):
                if self.rng.random() < 0.9:
                    metadata.pop(known, None)
        return made

    def _message(self, descriptor: Descriptor, depth: int, *, keep: float) -> Any:
        if self.rng.random() < self.wrongness:
            return self.junk()
        found: dict[str, Any] = {}
        for known in fields_of(descriptor):
            if self._budget <= 0 or self.rng.random() > keep:
                continue
            self._budget -= 1
            if known.is_inline and known.message is not None:
                inner = self._message(known.message, depth, keep=keep)
                found |= inner if isinstance(inner, dict) else {}
                continue
            found[known.json] = self._value(known, depth)
        return found

    def _value(self, known: Field, depth: int) -> Any:
        if self.rng.random() < self.wrongness:
            return self.junk()
        if known.is_list:
            return [self._one(known, depth - 1) for _ in range(self.rng.randrange(1, 3))]
        if known.is_map:
            return {self.text(): self._one(known, depth - 1) for _ in range(self.rng.randrange(3))}
        return self._one(known, depth)

    def _one(self, known: Field, depth: int) -> Any:
        if known.kind is Kind.STRUCT and known.message is not None:
            return self._message(known.message, depth - 1, keep=0.5) if depth > 0 else {}
        if known.kind is Kind.BOOL:
            return self.rng.random() < 0.5
        if known.kind in (Kind.INT, Kind.FLOAT):
            return self.rng.choice(NUMBERS)
        if known.kind is Kind.INT_OR_STRING:
            return self.rng.choice((*NUMBERS[:6], "25%", "110%", "http", self.text()))
        if known.kind is Kind.RAW:
            return self.junk()
        if known.kind in (Kind.TIME, Kind.MICRO_TIME):
            return self.rng.choice(("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000000Z", self.text()))
        if known.kind is Kind.STRING:
            enum = list(known.options.enum)
            return self.rng.choice([*enum, *enum, *_ENUM, self.text(), self.text()] if enum else [self.text(), "web"])
        return self.text()

    def mutated(self, document: Any) -> Any:
        """The document with some values replaced, members added and taken away."""
        if isinstance(document, dict):
            found = {key: self.mutated(value) for key, value in document.items() if self.rng.random() > 0.04}
            if self.rng.random() < 0.1:
                found[self.text()] = self.junk()
            return found
        if isinstance(document, list):
            return [self.mutated(item) for item in document] * (2 if self.rng.random() < 0.05 else 1)
        return self.junk(1) if self.rng.random() < 0.08 else document

    # -- the rest of a request

    def patch(self, document: Mapping[str, Any]) -> tuple[str, bytes]:
        """A patch of any type for the document."""
        kind = self.rng.choice(("json", "merge", "strategic", "apply"))
        if kind == "json":
            verbs = ("add", "remove", "replace", "move", "copy", "test", "frob")
            operations = [
                {
                    "op": self.rng.choice(verbs),
                    "path": self.pointer(document),
                    "from": self.pointer(document),
                    "value": self.junk(),
                }
                for _ in range(self.rng.randrange(4))
            ]
            return "application/json-patch+json", dumps(operations if self.rng.random() > 0.05 else self.junk())
        changed = self.mutated(document)
        if kind == "strategic" and isinstance(changed, dict):
            for directive in (
                "$patch",
                "$retainKeys",
                "$setElementOrder/containers",
                "$deleteFromPrimitiveList/finalizers",
            ):
                if self.rng.random() < 0.2:
                    place = changed.get("spec") if isinstance(changed.get("spec"), dict) else changed
                    assert isinstance(place, dict)
                    place[directive] = self.rng.choice(("delete", "replace", ["a"], [{"name": "a"}], self.junk()))
        types = {"merge": "merge-patch+json", "strategic": "strategic-merge-patch+json", "apply": "apply-patch+yaml"}
        return f"application/{types[kind]}", dumps(changed)

    def pointer(self, document: Any) -> str:
        """A JSON pointer that leads somewhere, most of the time."""
        path, value = "", document
        for _ in range(self.rng.randrange(5)):
            if isinstance(value, dict) and value:
                step = self.rng.choice(list(value))
                value = value[step]
                path += "/" + step.replace("~", "~0").replace("/", "~1")
            elif isinstance(value, list) and value:
                place = self.rng.randrange(len(value))
                path, value = f"{path}/{place}", value[place]
        return path + self.rng.choice(("", "", "", "/-", "/0", "/~", "/~2", f"/{self.text()}", "/99999999999999999999"))

    def path(self, info: ResourceInfo) -> str:
        """A path near a resource's, percent-encoded by half."""
        base = f"/apis/{info.group}/{info.version}" if info.group else f"/api/{info.version}"
        parts = [base]
        if self.rng.random() < 0.8:
            parts += ["namespaces", self.rng.choice(("default", "missing", self.text()))]
        parts += [info.plural] if self.rng.random() < 0.95 else [self.text()]
        if self.rng.random() < 0.7:
            parts.append(self.rng.choice(("a", "missing", self.text())))
        if self.rng.random() < 0.4:
            parts.append(
                self.rng.choice(
                    ("status", "scale", "log", "exec", "binding", "eviction", "proxy", "token", self.text())
                )
            )
        if self.rng.random() < 0.1:
            parts.append(self.text())
        safe = self.rng.choice(("/", "/%", "/%.~"))
        return parts[0] + "".join(f"/{quote(part, safe=safe)}" for part in parts[1:])

    def query(self) -> str:
        """A query of known names with odd values, and odd names."""
        pairs = []
        for _ in range(self.rng.randrange(4)):
            name = self.rng.choice((*_QUERY_NAMES, self.text()))
            value = self.rng.choice((*_QUERY_VALUES, self.text()))
            pairs.append(f"{quote(name)}={quote(value, safe='%=,()!')}")
        return "&".join(pairs)

    def headers(self) -> dict[str, str]:
        """Headers at odds with everything."""
        found = {}
        for name, values in _HEADERS.items():
            if self.rng.random() < 0.08:
                found[name] = self.rng.choice(values)
        return found


def dumps(value: Any) -> bytes:
    """JSON of whatever junk, numbers beyond 64 bits too."""
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        import json

        return json.dumps(value).encode()
