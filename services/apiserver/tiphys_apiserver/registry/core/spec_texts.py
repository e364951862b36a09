"""The JSON of pods, with the text of specs remembered: the pods of one owner have the same, but for a volume's name.

A spec is some three fifths of what a pod's JSON costs to make, and it is made for each new pod, for the answer to each
change of a status and for those who watch it. A text is kept with the name masked by bytes that no JSON has in it, and
each pod's own name is put in its place: see approved_specs for what that rests on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from tiphys_apimachinery.codec import json_codec
from tiphys_apimachinery.schema import descriptor_of, type_meta
from tiphys_apiserver.registry.core.approved_specs import MASK, spec_digest, token_volume


class SpecTexts:
    """Writes pods; the texts of the specs met last are kept, at most so many. For one loop."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()

    def dumps(self, pod: Any) -> bytes:
        """The pod as JSON text, as json_codec.dumps writes it."""
        if not pod.HasField("spec"):
            return json_codec.dumps(pod)
        api_version, kind = type_meta(descriptor_of(pod))
        document = {
            "kind": kind,
            "apiVersion": api_version,
            "metadata": json_codec.to_json(pod.metadata, with_type_meta=False),
            "spec": orjson.Fragment(self._spec(pod.spec)),
            "status": json_codec.to_json(pod.status, with_type_meta=False),
        }
        return orjson.dumps(document)

    def _spec(self, spec: Any) -> bytes:
        digest = spec_digest(spec)
        name = token_volume(spec).encode()
        masked = self._texts.get(digest)
        if masked is None:
            text = json_codec.dumps(spec, with_type_meta=False)
            if digest:
                self._texts[digest] = text.replace(name, MASK) if name else text
                if len(self._texts) > self._most:
                    self._texts.popitem(last=False)
            return text
        return masked.replace(MASK, name) if name else masked
