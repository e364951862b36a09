"""The words and the error of a refusal, the same by every door."""

from __future__ import annotations

from tiphys_apimachinery.errors import Forbidden
from tiphys_apiserver.authorization.interface import Attributes


def forbidden(attributes: Attributes, reason: str = "") -> Forbidden:
    """The error that refuses the request."""
    if not attributes.is_resource_request:
        return Forbidden.of("", "", forbidden_text(attributes, reason))
    return Forbidden.of(
        attributes.resource, attributes.name, forbidden_text(attributes, reason), group=attributes.api_group
    )


def forbidden_text(attributes: Attributes, reason: str = "") -> str:
    """Who may not do what, in Kubernetes' words, without the name of the object."""
    if not attributes.is_resource_request:
        text = f'User "{attributes.user.name}" cannot {attributes.verb} path "{attributes.path}"'
    else:
        resource = attributes.resource
        if attributes.subresource:
            resource = f"{resource}/{attributes.subresource}"
        where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
        text = (
            f'User "{attributes.user.name}" cannot {attributes.verb} resource "{resource}"'
            f' in API group "{attributes.api_group}" {where}'
        )
    return f"{text}: {reason}" if reason else text
