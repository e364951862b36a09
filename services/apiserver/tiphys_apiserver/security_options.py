"""Flags that say who callers may be, what they may do, and what is noted of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiphys_component.options import LogOptions, flag


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityOptions(LogOptions):
    """The part of the server's options that only experts of its safety change."""

    # -- what is noted
    audit_policy_file: Path | None = flag(
        "--audit-policy-file", default=None, help="audit.k8s.io/v1 Policy: of which requests how much is noted"
    )
    audit_log_path: str = flag(
        "--audit-log-path", default="", help="file of audit events, one line of JSON each; - is standard output"
    )
    audit_log_maxsize: int = flag(
        "--audit-log-maxsize", default=100, help="megabytes at which the audit log is put aside; 0 is never"
    )
    audit_log_maxbackup: int = flag(
        "--audit-log-maxbackup", default=0, help="most audit logs kept that were put aside; 0 keeps all"
    )
    audit_log_maxage: int = flag(
        "--audit-log-maxage", default=0, help="days that audit logs are kept; 0 keeps them for good"
    )
