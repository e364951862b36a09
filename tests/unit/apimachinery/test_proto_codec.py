"""The envelope carries the kind; what is no envelope is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.core.v1 import pod_pb2
from tiphys.api.runtime import runtime_pb2
from tiphys_apimachinery.codec import proto_codec
from tiphys_apimachinery.errors import BadRequest


@given(st.text(max_size=200), st.text(max_size=20), st.binary(max_size=300))
def test_envelope_is_what_protobuf_would_write(api_version: str, kind: str, raw: bytes) -> None:
    data = proto_codec.encode_envelope(api_version, kind, raw)
    unknown = runtime_pb2.Unknown(raw=raw, contentEncoding="", contentType="")
    unknown.typeMeta.apiVersion, unknown.typeMeta.kind = api_version, kind
    assert data == b"k8s\x00" + unknown.SerializeToString()
    assert proto_codec.decode_envelope(data) == (api_version, kind, raw)


@pytest.mark.parametrize("data", [b"", b"k8s", b"{}", b"k8s\x00\xff"])
def test_what_is_no_envelope_is_a_bad_request(data: bytes) -> None:
    with pytest.raises(BadRequest):
        proto_codec.decode_envelope(data)


def test_object_is_enveloped_with_its_kind() -> None:
    pod = pod_pb2.Pod()
    pod.metadata.name = "a"
    api_version, kind, raw = proto_codec.decode_envelope(proto_codec.encode(pod))
    assert (api_version, kind) == ("v1", "Pod")
    assert pod_pb2.Pod.FromString(raw) == pod
