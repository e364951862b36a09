"""`python -m hack.protogen`: writes protos/tiphys/{api,thirdparty,apiserver}/ anew."""

from __future__ import annotations

import sys
from collections import defaultdict

from hack.protogen.facts import BETA_KINDS, ROOT, Package, Record, Rules, load_packages, load_resources
from hack.protogen.layout import File, files_of
from hack.protogen.render import Writer
from hack.protogen.services import render as render_service

OUT = ROOT / "protos" / "tiphys"
BY_HAND = (
    "apiserver/v1/custom.proto",
    "apiserver/v1/wire.proto",
    "thirdparty/containerd/mount.proto",
    "thirdparty/dra/v1/api.proto",
    "thirdparty/kms/v2/api.proto",
)


def served_by_kind(packages: dict[str, Package]) -> dict[tuple[str, str, str], list[Record]]:
    """Stable resources, and those that Kubernetes leaves to an aggregated server, by (group, version, kind).

    With their columns and selectable fields.
    """
    facts = load_resources()
    versions = {p.json["version"] for p in packages.values() if p.json}
    found: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    stable = [r for r in facts["resources"] if "alpha" not in r["version"] and "beta" not in r["version"]]
    beta_kinds = {(packages[name].json or {})["version"]: kinds for name, kinds in BETA_KINDS.items()}
    beta = [r for r in facts["resources"] if r["kind"] in beta_kinds.get(r["version"], ())]
    for resource in [*stable, *beta, *facts["aggregated"]]:
        group, version, kind = resource["group"], resource["version"], resource["kind"]
        if version not in versions:
            continue
        columns = facts["columns"].get(f"{group}/{kind}")
        if columns is None and "get" in resource["verbs"]:
            columns = facts["defaultColumns"]
        selectable = facts["fieldSelectors"].get(f"{group}/{version}/{kind}", [])
        extra = [f for f in selectable if f not in ("metadata.name", "metadata.namespace")]
        found[group, version, kind].append({**resource, "columns": columns, "selectable": extra})
    return found


def main() -> int:
    """Writes every file; fails on rules that name what the tables don't have."""
    packages = load_packages()
    rules = Rules.load()
    wrong = rules.check(packages)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    files: list[File] = [file for package in packages.values() for file in files_of(package)]
    homes = {f"{f.package.name}.{m}": f"tiphys/{f.path}.proto" for f in files for m in f.messages}
    for file in files:
        for name in [*file.package.messages, *file.package.enums]:
            top = f"{file.package.name}.{name.partition('.')[0]}"
            homes.setdefault(f"{file.package.name}.{name}", homes.get(top, f"tiphys/{file.path}.proto"))
    wire = "tiphys/apiserver/v1/wire.proto"
    homes |= {f"tiphys.apiserver.v1.{name}": wire for name in ("EventType", "PatchType", "TerminalSize")}
    homes["containerd.types.Mount"] = "tiphys/thirdparty/containerd/mount.proto"
    resources = served_by_kind(packages)
    written = {}
    for file in files:
        writer = Writer(file.package, rules, resources, homes)
        first = files_of(file.package)[0].path == file.path
        written[file.path] = writer.file(file, with_services=first)
    by_group = {
        (p.json["group"], p.json["version"]): name for name, p in packages.items() if p.json and "meta" not in name
    }
    for (group, version, _kind), served in resources.items():
        for resource in served:
            path, text = render_service(resource, by_group[group, version], homes)
            written[path] = text
    keep = {OUT / f"{path}.proto" for path in written} | {OUT / path for path in BY_HAND}
    for folder in ("api", "thirdparty", "apiserver"):
        for old in (OUT / folder).rglob("*.proto"):
            if old not in keep:
                old.unlink()
    for path, text in written.items():
        target = OUT / f"{path}.proto"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
    print(f"{len(written)} files below protos/tiphys")
    return 0


if __name__ == "__main__":
    sys.exit(main())
