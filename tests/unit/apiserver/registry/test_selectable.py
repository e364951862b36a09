"""The fields that selectors may name are there to be read, of every kind."""

from __future__ import annotations

import pytest

from tiphys.api.batch.v1.batch_pb2 import Job
from tiphys_apimachinery.scheme import ResourceInfo, load_default
from tiphys_apiserver.registry.selectable import FieldReader

KINDS = [info for info in load_default().resources() if info.selectable_fields]


@pytest.mark.parametrize("info", KINDS, ids=[f"{info.group}/{info.version} {info.plural}" for info in KINDS])
def test_every_selectable_field_is_read_of_an_empty_object(info: ResourceInfo) -> None:
    assert set(info.selectable_fields) <= set(FieldReader(info).read(info.message()))


def test_B17_jobs_are_selected_by_their_successes_under_their_other_name() -> None:
    job = Job()
    job.status.succeeded = 3
    info = next(info for info in KINDS if info.plural == "jobs")
    assert FieldReader(info).read(job)["status.successful"] == "3"
