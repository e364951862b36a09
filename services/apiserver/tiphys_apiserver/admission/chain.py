"""The order of the admission plug-ins. It is here and only here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from tiphys_apiserver.admission.interface import AdmissionAttributes, MutatingPlugin, ValidatingPlugin
from tiphys_apiserver.admission.plugins.certificates import CertificateApproval, CertificateSubjectRestriction
from tiphys_apiserver.admission.plugins.claim_resize import PersistentVolumeClaimResize
from tiphys_apiserver.admission.plugins.default_ingress_class import DefaultIngressClass
from tiphys_apiserver.admission.plugins.default_storage_class import DefaultStorageClass
from tiphys_apiserver.admission.plugins.default_tolerations import DefaultTolerationSeconds
from tiphys_apiserver.admission.plugins.limit_ranger import LimitRanger
from tiphys_apiserver.admission.plugins.mutating_policies import ExtendedMutation, MutatingAdmissionPolicies
from tiphys_apiserver.admission.plugins.namespace_lifecycle import ImmortalNamespaces, NamespaceLifecycle
from tiphys_apiserver.admission.plugins.node_restriction import NodeRestriction
from tiphys_apiserver.admission.plugins.pod_security import PodSecurity
from tiphys_apiserver.admission.plugins.priority import Priority
from tiphys_apiserver.admission.plugins.rbac_escalation import RBACEscalation
from tiphys_apiserver.admission.plugins.resource_quota import ResourceQuota
from tiphys_apiserver.admission.plugins.runtime_class import RuntimeClass
from tiphys_apiserver.admission.plugins.service_account import ServiceAccount
from tiphys_apiserver.admission.plugins.storage_in_use import StorageObjectInUseProtection
from tiphys_apiserver.admission.plugins.taint_nodes import TaintNodesByCondition
from tiphys_apiserver.admission.plugins.validating_policies import ValidatingAdmissionPolicies
from tiphys_apiserver.admission.plugins.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from tiphys_apiserver.admission.webhooks.caller import WebhookCaller
from tiphys_apiserver.authorization.escalation import EscalationCheck
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.clock import Clock

# Those that look at nothing but the namespace of a write.
_BY_NAMESPACE = frozenset({NamespaceLifecycle.name})


class AdmissionChain:
    """Runs the plug-ins in order; the first refusal ends the write."""

    def __init__(self, mutating: Sequence[MutatingPlugin], validating: Sequence[ValidatingPlugin]) -> None:
        self._mutating = tuple(mutating)
        self._validating = tuple(validating)

    async def admit(self, attributes: AdmissionAttributes) -> bool:
        """Run every mutating plug-in that handles the write; whether defaults must be filled in anew."""
        is_open = False
        for plugin in self._mutating:
            if plugin.handles(attributes) and await plugin.admit(attributes):
                is_open = True
        return is_open

    async def admit_alike(self, attributes: AdmissionAttributes) -> bool:
        """Judge writes that differ in name and object only, where no plug-in needs to see each."""
        if any(plugin.handles(attributes) for plugin in self._validating):
            return False
        concerned = [plugin for plugin in self._mutating if plugin.handles(attributes)]
        if any(plugin.name not in _BY_NAMESPACE for plugin in concerned):
            return False
        for plugin in concerned:
            await plugin.admit(attributes)
        return True

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Run every validating plug-in that handles the write."""
        for plugin in self._validating:
            if plugin.handles(attributes):
                await plugin.validate(attributes)


def build_chain(
    objects: ObjectAccess,
    *,
    clock: Clock,
    rng: Random,
    escalation: EscalationCheck | None,
    authorizer: Authorizer,
    webhooks: WebhookCaller,
    new_uid: Callable[[], str],
    disabled: frozenset[str] = frozenset(),
) -> AdmissionChain:
    """The chain of this server. escalation is None where RBAC is not in use; authorizer is
    asked for rights beside those of the request itself; disabled holds plug-in names."""
    limits = LimitRanger(objects)
    mutating: list[MutatingPlugin] = [
        # First: nothing else need be looked at where the namespace is missing or going.
        NamespaceLifecycle(objects),
        # Before whatever counts resources.
        limits,
        # Before the plug-ins that look at volumes and secrets: it adds the token volume.
        ServiceAccount(objects, clock, rng),
        # Any order from here on: they touch fields of their own.
        TaintNodesByCondition(),
        Priority(objects),
        DefaultTolerationSeconds(),
        DefaultStorageClass(objects),
        DefaultIngressClass(objects),
        RuntimeClass(objects),
        StorageObjectInUseProtection(),
        # Last of those that change: they see the whole object, and what they make of it is validated.
        _extensions(
            MutatingAdmissionPolicies(objects, authorizer),
            MutatingAdmissionWebhook(objects, webhooks, new_uid, authorizer),
            disabled,
        ),
    ]
    validating: list[ValidatingPlugin] = [
        ImmortalNamespaces(),
        # Cheap and about who asks: before anything that counts.
        NodeRestriction(objects),
        PodSecurity(objects),
        limits,
        CertificateApproval(authorizer),
        CertificateSubjectRestriction(),
        PersistentVolumeClaimResize(objects),
    ]
    if escalation is not None:
        validating.append(RBACEscalation(objects, escalation))
    validating.append(ValidatingAdmissionPolicies(objects, authorizer))
    # After all that is quick; nothing is counted yet.
    validating.append(ValidatingAdmissionWebhook(objects, webhooks, new_uid, authorizer))
    # Last: what it counts as used, nothing refuses any more.
    validating.append(ResourceQuota(objects, clock))
    return AdmissionChain(
        [plugin for plugin in mutating if plugin.name not in disabled],
        [plugin for plugin in validating if plugin.name not in disabled],
    )


def _extensions(
    policies: MutatingAdmissionPolicies, webhooks: MutatingAdmissionWebhook, disabled: frozenset[str]
) -> MutatingPlugin:
    """Policies before webhooks, which policies may follow once more."""
    if policies.name in disabled:
        return webhooks
    return policies if webhooks.name in disabled else ExtendedMutation(policies, webhooks)
