"""Builds the auditor that the options ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tiphys_apimachinery.scheme import Scheme
from tiphys_apiserver.audit.auditor import Auditor
from tiphys_apiserver.audit.bodies import Bodies
from tiphys_apiserver.audit.log_file import LogFile, Rotation
from tiphys_apiserver.audit.policy import PolicyError, read_policy
from tiphys_apiserver.audit.trail import Counts, Trail
from tiphys_apiserver.audit.webhook import WebhookSink
from tiphys_apiserver.security_options import SecurityOptions
from tiphys_client.kubeconfig import load as load_kubeconfig
from tiphys_component.app import StartupError
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry

_FLAG = "--audit-policy-file"


def build_auditor(
    options: SecurityOptions, scheme: Scheme, clock: Clock, *, metrics: Registry, new_uid: Callable[[], str]
) -> Auditor | None:
    """The auditor, None where no policy is given. Raises StartupError where a file can't be used."""
    path = options.audit_policy_file
    has_sink = bool(options.audit_log_path) or options.audit_webhook_config_file is not None
    if path is None:
        if has_sink:
            raise StartupError("there is a place for audit events and no policy", f"say by {_FLAG} what is to be noted")
        return None
    if not has_sink:
        raise StartupError(
            f"{_FLAG} is given without a place for events", "give --audit-log-path (- is standard output) or a webhook"
        )
    try:
        policy = read_policy(path.read_bytes())
    except OSError as err:
        raise StartupError(f"{_FLAG}: {path} can't be read: {err.strerror}", "make the file") from err
    except PolicyError as err:
        raise StartupError(f"{_FLAG}: {path} can't be used: {err}", "correct the file") from err
    bodies, counts = Bodies(scheme), Counts(metrics)
    trails = []
    if options.audit_log_path:
        trails.append(Trail(_log_file(options, clock), bodies, counts))
    if options.audit_webhook_config_file is not None:
        trails.append(Trail(_webhook(options.audit_webhook_config_file), bodies, counts, drops=True))
    return Auditor(policy, trails, clock, new_uid)


def _log_file(options: SecurityOptions, clock: Clock) -> LogFile:
    rotation = Rotation(options.audit_log_maxsize, options.audit_log_maxage, options.audit_log_maxbackup)
    log = LogFile(options.audit_log_path, rotation, clock.now)
    try:
        log.open()
    except OSError as err:
        raise StartupError(
            f"--audit-log-path: {options.audit_log_path} can't be written: {err.strerror}", "give another path"
        ) from err
    return log


def _webhook(path: Path) -> WebhookSink:
    try:
        return WebhookSink(load_kubeconfig(path))
    except (ValueError, OSError) as err:
        raise StartupError(f"--audit-webhook-config-file: {path} can't be used: {err}", "correct the file") from err
