"""Builds the auditor that the options ask for."""

from __future__ import annotations

from collections.abc import Callable

from tiphys_apimachinery.scheme import Scheme
from tiphys_apiserver.audit.auditor import Auditor
from tiphys_apiserver.audit.bodies import Bodies
from tiphys_apiserver.audit.log_file import LogFile, Rotation
from tiphys_apiserver.audit.policy import PolicyError, read_policy
from tiphys_apiserver.audit.trail import Trail
from tiphys_apiserver.security_options import SecurityOptions
from tiphys_component.app import StartupError
from tiphys_component.clock import Clock
from tiphys_component.metrics import Registry

_FLAG = "--audit-policy-file"


def build_auditor(
    options: SecurityOptions, scheme: Scheme, clock: Clock, *, metrics: Registry, new_uid: Callable[[], str]
) -> Auditor | None:
    """The auditor, None where no policy is given. Raises StartupError where a file can't be used."""
    path = options.audit_policy_file
    if path is None:
        if options.audit_log_path:
            raise StartupError("--audit-log-path is given without a policy", f"say by {_FLAG} what is to be noted")
        return None
    if not options.audit_log_path:
        raise StartupError(f"{_FLAG} is given without a log", "give --audit-log-path; - is standard output")
    try:
        policy = read_policy(path.read_bytes())
    except OSError as err:
        raise StartupError(f"{_FLAG}: {path} can't be read: {err.strerror}", "make the file") from err
    except PolicyError as err:
        raise StartupError(f"{_FLAG}: {path} can't be used: {err}", "correct the file") from err
    rotation = Rotation(options.audit_log_maxsize, options.audit_log_maxage, options.audit_log_maxbackup)
    log = LogFile(options.audit_log_path, rotation, clock.now)
    try:
        log.open()
    except OSError as err:
        raise StartupError(
            f"--audit-log-path: {options.audit_log_path} can't be written: {err.strerror}", "give another path"
        ) from err
    return Auditor(policy, Trail([log], Bodies(scheme), metrics), clock, new_uid)
