"""Reads the fact tables and the hand-written rules that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLES = ROOT / "tests" / "conformance" / "contracts"
RULES = Path(__file__).parent / "rules"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Package:
    """The facts of one proto package: wire facts, and for Kubernetes' own the JSON facts."""

    name: str
    syntax: str
    messages: Mapping[str, Record]
    enums: Mapping[str, Record]
    services: Mapping[str, Record]
    json: Record | None

    @property
    def is_kubernetes(self) -> bool:
        """True for API types, which carry our options."""
        return self.json is not None

    def struct(self, message: str) -> Record | None:
        """The Go struct behind a message, or None where there is none."""
        found: Record | None = self.json["structs"].get(message) if self.json else None
        return found


@dataclass(slots=True)
class Rules:
    """Docs and value rules of messages and fields; remembers which were used, to find misspelt ones."""

    messages: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Rules:
        """Reads every file of rules/; raises ValueError where two speak of one message."""
        rules = cls()
        for path in sorted(RULES.glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                for name, entry in (document.get("messages") or {}).items():
                    key = (document["package"], name)
                    if key in rules.messages:
                        raise ValueError(f"{path.name}: {key} is described twice")
                    rules.messages[key] = entry if isinstance(entry, dict) else {"doc": entry}
        return rules

    def message_doc(self, package: str, message: str) -> str | None:
        """The one line about a message."""
        return self.messages.get((package, message), {}).get("doc")

    def field(self, package: str, message: str, name: str) -> dict[str, Any]:
        """The rules of one field; a plain text is its doc."""
        entry = (self.messages.get((package, message), {}).get("fields") or {}).get(name, {})
        return entry if isinstance(entry, dict) else {"doc": entry}

    def check(self, packages: Mapping[str, Package]) -> list[str]:
        """Rules that name a message or field which the tables don't have."""
        wrong = []
        for (package, message), entry in self.messages.items():
            if package not in packages:
                wrong.append(f"no package {package}")
                continue
            facts = packages[package]
            if message not in facts.messages and message not in facts.enums and message not in facts.services:
                wrong.append(f"{package} has no message {message}")
                continue
            known = {f["name"] for f in facts.messages.get(message, {}).get("fields", [])}
            known |= set(facts.enums.get(message, {}).get("values", {}))
            known |= {m["name"] for m in facts.services.get(message, {}).get("methods", [])}
            wrong += [f"{package}.{message} has no {name}" for name in entry.get("fields") or {} if name not in known]
        return wrong


# What is taken from packages of the extra tier: these kinds, with what their messages are made of.
BETA_KINDS: Mapping[str, tuple[str, ...]] = {
    "k8s.io.api.admissionregistration.v1beta1": ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
}


def _only(wire: Record, kinds: Iterable[str]) -> Record:
    """The facts with no other messages than kinds, their lists, and what these are made of."""
    waiting = [name for kind in kinds for name in (kind, f"{kind}List")]
    kept: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in kept or name not in wire["messages"]:
            continue
        kept.add(name)
        types = (field["type"] for field in wire["messages"][name]["fields"])
        waiting += [found.removeprefix(f"{wire['package']}.") for found in types]
    return {**wire, "messages": {name: entry for name, entry in wire["messages"].items() if name in kept}}


def load_packages() -> dict[str, Package]:
    """Every package of the core tier by its proto package name, and what is taken from the extra tier."""
    packages: dict[str, Package] = {}
    for entry in json.loads((TABLES / "proto" / "index.json").read_text()):
        if entry["tier"] != "core" and entry["table"] not in BETA_KINDS:
            continue
        wire = json.loads((TABLES / "proto" / f"{entry['table']}.json").read_text())
        if entry["tier"] != "core":
            wire = _only(wire, BETA_KINDS[entry["table"]])
        facts = TABLES / "json" / f"{entry['table']}.json"
        before = packages.get(wire["package"])
        packages[wire["package"]] = Package(
            name=wire["package"],
            syntax=wire["syntax"],
            messages={**(before.messages if before else {}), **wire["messages"]},
            enums={**(before.enums if before else {}), **(wire.get("enums") or {})},
            services=wire.get("services") or {},
            json=json.loads(facts.read_text()) if facts.exists() else None,
        )
    return packages


def load_resources() -> Record:
    """The discovery facts."""
    found: Record = json.loads((TABLES / "resources.json").read_text())
    return found
