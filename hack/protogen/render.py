"""Writes messages, enums and services as .proto text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hack.protogen import options
from hack.protogen.facts import Package, Record, Rules
from hack.protogen.layout import File

WIDTH = 110
# Files of google.protobuf that are not named after the message.
_WELL_KNOWN = dict.fromkeys(["StringValue", "BoolValue", "Int64Value", "UInt32Value"], "wrappers") | {
    "FieldMask": "field_mask"
}


def comment(text: str | None, indent: str = "") -> list[str]:
    """Comment lines of a doc, wrapped."""
    return [f"{indent}// {line}" for line in textwrap.wrap(text, WIDTH - len(indent))] if text else []


@dataclass(frozen=True, slots=True)
class Writer:
    """Renders one package; `homes` says which file a full message or enum name is declared in."""

    package: Package
    rules: Rules
    resources: Mapping[tuple[str, str, str], Sequence[Record]]
    homes: Mapping[str, str]

    def file(self, file: File, *, with_services: bool) -> str:
        """The whole text of one file."""
        enums = [e for e in self.package.enums if "." not in e] if file.messages == self._first_messages() else []
        body: list[str] = []
        if with_services:
            for name, service in self.package.services.items():
                body += ["", *self._service(name, service)]
        for name in enums:
            body += ["", *self._enum(name, "")]
        for name in file.messages:
            body += ["", *self._message(name, "")]
        path = f"tiphys/{file.path}.proto"
        uses_options = any("(tiphys.options.v1." in line for line in body)
        homes = {*self._imports(file, with_services), *(["tiphys/options/v1/options.proto"] if uses_options else [])}
        imports = [f'import "{home}";' for home in sorted(homes - {path})]
        head = [
            *comment(self._title(file)),
            f'syntax = "{self.package.syntax}";',
            "",
            f"package {self.package.name};",
            *([""] if imports else []),
            *imports,
        ]
        return "\n".join([*head, *body, ""])

    def _title(self, file: File) -> str:
        name = file.path.rpartition("/")[2].replace("_", " ")
        if self.package.is_kubernetes:
            return f"Objects of {self.package.name}: {name}. Made by hack/update-protos from tables and rules."
        return f"The contract {self.package.name}, wire names and numbers as published. Made by hack/update-protos."

    def _first_messages(self) -> tuple[str, ...]:
        from hack.protogen.layout import files_of

        return files_of(self.package)[0].messages

    def _imports(self, file: File, with_services: bool) -> Iterator[str]:
        for name in file.messages:
            for nested in self._family(name):
                for fact in self.package.messages[nested].get("fields", []):
                    kinds = [fact["map"]["value"]] if fact["type"] == "map" else [fact["type"]]
                    for kind in kinds:
                        if "." in kind:
                            yield self._home(kind.removeprefix("enum:"))
        if with_services:
            for service in self.package.services.values():
                for method in service["methods"]:
                    yield self._home(method["input"])
                    yield self._home(method["output"])

    def _home(self, full_name: str) -> str:
        if full_name.startswith("google.protobuf."):
            last = full_name.rpartition(".")[2]
            return f"google/protobuf/{_WELL_KNOWN.get(last, last.lower())}.proto"
        return self.homes[full_name]

    def _family(self, message: str) -> list[str]:
        return [m for m in self.package.messages if m == message or m.startswith(message + ".")]

    def _message(self, name: str, indent: str) -> list[str]:
        facts = self.package.messages[name]
        struct = self.package.struct(name)
        inner = indent + "  "
        doc = self.rules.message_doc(self.package.name, name) or options.standard_doc(name, struct)
        lines = [*comment(doc, indent), f"{indent}message {name.rpartition('.')[2]} {{"]
        lines += options.of_message(self.package, name, struct, self.resources, indent=inner)
        for group in ("reserved",):
            if facts.get(group):
                lines += [f"{inner}reserved {', '.join(str(n) for n in facts[group])};"]
        depth = name.count(".") + 1
        for kind, render in ((self.package.enums, self._enum), (self.package.messages, self._message)):
            for nested in kind:
                if nested.startswith(name + ".") and nested.count(".") == depth:
                    lines += [*render(nested, inner), ""]
        lines += self._fields(name, struct, inner)
        if lines[-1] == "":
            lines.pop()
        return (
            [*lines, f"{indent}}}"]
            if not lines[-1].endswith(f"{name.rpartition('.')[2]} {{")
            else [*lines[:-1], lines[-1] + "}"]
        )

    def _fields(self, message: str, struct: Record | None, indent: str) -> list[str]:
        facts = list(self.package.messages[message].get("fields", []))
        golang = {f["pb"]: f for f in struct["fields"] if "pb" in f} if struct else {}
        order = {number: i for i, number in enumerate(golang)}
        facts.sort(key=lambda f: order.get(f["n"], len(order) + f["n"]))
        lines: list[str] = []
        oneof = None
        for fact in facts:
            group = None if fact.get("proto3_optional") else fact.get("oneof")
            if oneof and group != oneof:
                lines.append(f"{indent}}}")
            if group and group != oneof:
                lines.append(f"{indent}oneof {group} {{")
            oneof = group
            lines += self._field(message, fact, golang.get(fact["n"]), indent + "  " * bool(group))
        return [*lines, f"{indent}}}"] if oneof else lines

    def _field(self, message: str, fact: Record, golang: Record | None, indent: str) -> list[str]:
        rules = self.rules.field(self.package.name, message, fact["name"])
        if fact["type"] == "map":
            kind = f"map<{fact['map']['key']}, {self._type(fact['map']['value'])}>"
        else:
            kind = self._type(fact["type"])
            if fact["label"] == "repeated":
                kind = f"repeated {kind}"
            elif fact["label"] == "required":
                kind = f"required {kind}"
            elif fact.get("proto3_optional") or (self.package.syntax == "proto2" and not fact.get("oneof")):
                kind = f"optional {kind}"
        extras = options.of_field(self.package, fact, golang, rules)
        head = f"{indent}{kind} {fact['name']} = {fact['n']}"
        line = f"{head} [{', '.join(extras)}];" if extras else f"{head};"
        if len(line) > WIDTH + 10 and extras:
            line = f"{head} [\n{indent}  " + f",\n{indent}  ".join(extras) + f"\n{indent}];"
        return [*comment(rules.get("doc") or options.standard_field_doc(message, fact["name"]), indent), line]

    def _type(self, kind: str) -> str:
        name = kind.removeprefix("enum:")
        if "." not in name:
            return name
        own = self.package.name + "."
        return name.removeprefix(own) if name.startswith(own) else "." + name

    def _enum(self, name: str, indent: str) -> list[str]:
        facts = self.package.enums[name]
        doc = self.rules.message_doc(self.package.name, name)
        lines = [*comment(doc, indent), f"{indent}enum {name.rpartition('.')[2]} {{"]
        numbers = list(facts["values"].values())
        if len(set(numbers)) != len(numbers):
            lines.append(f"{indent}  option allow_alias = true;")
        for value, number in sorted(facts["values"].items(), key=lambda item: item[1] != 0 and item[1]):
            lines += [*comment(self.rules.field(self.package.name, name, value).get("doc"), indent + "  ")]
            lines.append(f"{indent}  {value} = {number};")
        return [*lines, f"{indent}}}"]

    def _service(self, name: str, facts: Record) -> list[str]:
        lines = [*comment(self.rules.message_doc(self.package.name, name)), f"service {name} {{"]
        for method in facts["methods"]:
            lines += comment(self.rules.field(self.package.name, name, method["name"]).get("doc"), "  ")
            taken = ("stream " if method["client_streaming"] else "") + self._type(method["input"])
            given = ("stream " if method["server_streaming"] else "") + self._type(method["output"])
            lines.append(f"  rpc {method['name']}({taken}) returns ({given});")
        return [*lines, "}"]
