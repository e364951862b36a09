"""Asks webhooks: mutating ones in order, each seeing what those before it made; validating ones all at once.

Source: Kubernetes apiserver pkg/admission/plugin/webhook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message

from tiphys.api.admissionregistration.v1.admissionregistration_pb2 import (
    MutatingWebhookConfiguration,
    ValidatingWebhookConfiguration,
)
from tiphys_apimachinery.cel.program import CONDITIONS_BUDGET, Activation, Budget
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.errors import APIError, BadRequest, Forbidden, InternalError, Invalid
from tiphys_apimachinery.patch import json_patch
from tiphys_apiserver.admission.interface import AdmissionAttributes
from tiphys_apiserver.admission.policies.evaluation import Evaluator
from tiphys_apiserver.admission.policies.variables import CONDITION_VARIABLES, namespace_labels, variables_of
from tiphys_apiserver.admission.webhooks.caller import CallFailed, WebhookCaller
from tiphys_apiserver.admission.webhooks.hooks import Hook, is_exempt, read_hooks
from tiphys_apiserver.admission.webhooks.review import BadAnswer, Verdict, question, verdict
from tiphys_apiserver.authorization.interface import Authorizer
from tiphys_apiserver.cel.expressions import compile_expression
from tiphys_apiserver.registry.objects import ObjectAccess
from tiphys_component.log import get_logger

_log = get_logger("admission.webhooks")


class _Webhooks:
    """What both kinds have in common: the webhooks of all configurations, read anew when one changed."""

    def __init__(
        self,
        objects: ObjectAccess,
        caller: WebhookCaller,
        new_uid: Callable[[], str],
        authorizer: Authorizer,
        *,
        cls: type[Message],
    ) -> None:
        self._evaluator = Evaluator(authorizer)
        self._objects = objects
        self._caller = caller
        self._new_uid = new_uid
        self._cls = cls
        self._seen = -1
        self._hooks: tuple[Hook, ...] = ()

    def handles(self, attributes: AdmissionAttributes) -> bool:
        """Nothing where there is no configuration; else all but the configurations themselves."""
        version = self._objects.version(self._cls)
        if version == self._seen and not self._hooks:
            return False
        return not is_exempt(attributes)

    async def _matching(self, attributes: AdmissionAttributes) -> list[Hook]:
        version = self._objects.version(self._cls)
        if not version or version != self._seen:
            self._hooks, self._seen = read_hooks(await self._objects.list(self._cls)), version
        if not self._hooks:
            return []
        labels = namespace_labels(self._objects, attributes)
        found = [hook for hook in self._hooks if hook.matches(attributes, labels)]
        if not any(hook.conditions for hook in found):
            return found
        variables = variables_of(attributes)

        def meeting() -> list[Hook]:
            seen = Activation(variables, Budget(CONDITIONS_BUDGET))
            return [hook for hook in found if self._meets(hook, seen)]

        return await self._evaluator.run(variables, meeting)

    @staticmethod
    def _meets(hook: Hook, seen: Activation) -> bool:
        """Whether all conditions are true. Raises Forbidden where one has no value and the policy is to fail."""
        broken: tuple[str, CelError] | None = None
        for name, expression in hook.conditions:
            try:
                if not compile_expression(expression, CONDITION_VARIABLES).is_true(seen):
                    return False
            except CelError as err:
                broken = broken or (name, err)
        if broken is None:
            return True
        condition, problem = broken
        if not hook.fails_closed:
            _log.warning(
                "condition failed, webhook is not asked", webhook=hook.name, condition=condition, err=str(problem)
            )
            return False
        raise Forbidden(f'admission webhook "{hook.name}": match condition "{condition}" resulted in error: {problem}')

    async def _ask(self, hook: Hook, attributes: AdmissionAttributes, *, may_patch: bool) -> Verdict | None:
        """The answer; None where there is none and the policy is to go on. Raises InternalError where it is to fail."""
        if attributes.dry_run and hook.has_side_effects:
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        uid = self._new_uid()
        try:
            answer = await self._caller.post(hook.endpoint, question(attributes, uid), timeout_s=hook.timeout_s)
            return verdict(answer, uid, may_patch=may_patch)
        except (CallFailed, BadAnswer) as err:
            if hook.fails_closed:
                raise InternalError(
                    f'Internal error occurred: failed calling webhook "{hook.name}": failed to call webhook: {err}'
                ) from err
            _log.warning("webhook failed, going on", webhook=hook.name, configuration=hook.configuration, err=str(err))
            return None


class MutatingAdmissionWebhook(_Webhooks):
    """Lets webhooks change objects; one that asks for it sees the object again when later ones changed it."""

    name = "MutatingAdmissionWebhook"

    def __init__(
        self, objects: ObjectAccess, caller: WebhookCaller, new_uid: Callable[[], str], authorizer: Authorizer
    ) -> None:
        super().__init__(objects, caller, new_uid, authorizer, cls=MutatingWebhookConfiguration)

    async def admit(self, attributes: AdmissionAttributes) -> bool:
        """Change the object in place; whether it changed.

        Raises what a webhook refuses with, InternalError for one that fails.
        """
        hooks = await self._matching(attributes)
        changed_after: dict[int, bool] = {}
        changed = False
        for place, hook in enumerate(hooks):
            if await self._change(hook, attributes):
                changed = True
                changed_after |= dict.fromkeys(range(place), True)
        for place, hook in enumerate(hooks):
            if hook.again_if_needed and changed_after.get(place):
                await self._change(hook, attributes)
        return changed

    async def _change(self, hook: Hook, attributes: AdmissionAttributes) -> bool:
        found = await self._ask(hook, attributes, may_patch=True)
        if found is None:
            return False
        _tell(attributes, found)
        if not found.allowed:
            raise refusal(hook, found)
        if not found.patch or attributes.object is None:
            return False
        return _apply(hook, attributes.object, found.patch)


class ValidatingAdmissionWebhook(_Webhooks):
    """Lets webhooks refuse what they do not like."""

    name = "ValidatingAdmissionWebhook"

    def __init__(
        self, objects: ObjectAccess, caller: WebhookCaller, new_uid: Callable[[], str], authorizer: Authorizer
    ) -> None:
        super().__init__(objects, caller, new_uid, authorizer, cls=ValidatingWebhookConfiguration)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Ask all at once. Raises the first refusal in their order, InternalError for one that fails."""
        hooks = await self._matching(attributes)
        if not hooks:
            return
        outcomes: list[APIError | None] = [None] * len(hooks)

        async def ask(place: int, hook: Hook) -> None:
            try:
                found = await self._ask(hook, attributes, may_patch=False)
            except APIError as err:
                outcomes[place] = err
                return
            if found is not None:
                _tell(attributes, found)
                outcomes[place] = None if found.allowed else refusal(hook, found)

        with _noting_time(attributes):
            await self._ask_all(ask, hooks)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    @staticmethod
    async def _ask_all(ask: Callable[[int, Hook], Coroutine[Any, Any, None]], hooks: list[Hook]) -> None:
        async with asyncio.TaskGroup() as group:
            for place, hook in enumerate(hooks):
                group.create_task(ask(place, hook), name=f"webhook {hook.name}")


def refusal(hook: Hook, found: Verdict) -> APIError:
    """The error for a webhook's no, with the code and words it chose."""
    head = f'admission webhook "{hook.name}" denied the request'
    message = f"{head}: {found.message}" if found.message else f"{head} without explanation"
    kinds: Mapping[int, type[APIError]] = {0: Forbidden, 403: Forbidden, 400: BadRequest, 422: Invalid}
    kind = kinds.get(found.code)
    if kind is None:
        return APIError(
            message, code=found.code if 400 <= found.code < 600 else 403, reason=found.reason or "Forbidden"
        )
    return kind(message)


def _apply(hook: Hook, obj: Any, patch: list[Any]) -> bool:
    """Patch the object in place; whether it changed."""
    before = json_codec.to_json(obj)
    try:
        after = json_patch.apply_patch(before, patch)
        patched = json_codec.from_json(type(obj), after)
    except APIError as err:
        raise InternalError(f'Internal error occurred: add operation of webhook "{hook.name}": {err}') from err
    if patched == obj:
        return False
    obj.CopyFrom(patched)
    return True


@contextmanager
def _noting_time(attributes: AdmissionAttributes) -> Iterator[None]:
    """What others take is theirs: the server's own latency is told without it."""
    now = asyncio.get_running_loop().time
    began = now()
    try:
        yield
    finally:
        attributes.waited(now() - began)


def _tell(attributes: AdmissionAttributes, found: Verdict) -> None:
    for text in found.warnings:
        attributes.warn(text)
