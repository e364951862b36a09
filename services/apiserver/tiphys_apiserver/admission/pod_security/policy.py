"""What a namespace asks of its pods, and what they lack of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tiphys_apimachinery.errors import FieldError
from tiphys_apiserver.admission.pod_security import baseline, restricted
from tiphys_apiserver.admission.pod_security.finding import Finding, Pod, Version

PREFIX = "pod-security.kubernetes.io/"
ENFORCE, AUDIT, WARN = "enforce", "audit", "warn"
MODES = (ENFORCE, AUDIT, WARN)
PRIVILEGED, BASELINE, RESTRICTED = "privileged", "baseline", "restricted"
LEVELS = (PRIVILEGED, BASELINE, RESTRICTED)
_LATEST = "latest"
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")
NEWEST: Version = (1, 1 << 16)


@dataclass(frozen=True, slots=True)
class Level:
    """A level in one version of the standard; text is the version as the label has it."""

    name: str = PRIVILEGED
    version: Version = NEWEST
    text: str = _LATEST

    def __str__(self) -> str:
        return f"{self.name}:{self.text}"


FREE = Level()


def read_labels(labels: Mapping[str, str]) -> tuple[dict[str, Level], list[FieldError]]:
    """The level of each mode, and the faults of the labels. A mode with a fault is restricted for enforce, else free.

    Source: a namespace with an unreadable label must not become open by it.
    """
    levels: dict[str, Level] = {}
    errors: list[FieldError] = []
    for mode in MODES:
        key, version_key = f"{PREFIX}{mode}", f"{PREFIX}{mode}-version"
        name, text = labels.get(key, ""), labels.get(version_key, "")
        version, is_bad = NEWEST, False
        if name and name not in LEVELS:
            errors.append(FieldError.invalid(f"metadata.labels[{key}]", name, f"must be one of {', '.join(LEVELS)}"))
            is_bad = True
        if text and text != _LATEST:
            match = _VERSION.fullmatch(text)
            if match is None:
                why = 'must be "latest" or "v1.x"'
                errors.append(FieldError.invalid(f"metadata.labels[{version_key}]", text, why))
                is_bad = True
            else:
                version = (1, int(match[1]))
        if is_bad:
            levels[mode] = Level(RESTRICTED) if mode == ENFORCE else FREE
        else:
            levels[mode] = Level(name or PRIVILEGED, version, text or _LATEST)
    return levels, errors


def findings(level: Level, pod: Pod) -> list[Finding]:
    """The rules of the level that the pod breaks, in the order in which they are told."""
    if level.name == PRIVILEGED:
        return []
    checks = [check for check in baseline.CHECKS if check.applies(level.version)]
    if level.name == RESTRICTED:
        stricter = [check for check in restricted.CHECKS if check.applies(level.version)]
        replaced = {check.replaces for check in stricter}
        checks = [check for check in checks if check.run not in replaced] + stricter
    found = [check.run(pod) for check in checks]
    return [finding for finding in found if finding is not None]


def told(level: Level, found: list[Finding]) -> str:
    """The violations of one level, as refusals and warnings have them behind their verb."""
    return f'PodSecurity "{level}": ' + ", ".join(str(finding) for finding in found)
