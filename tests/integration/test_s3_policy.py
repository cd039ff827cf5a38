"""The policies of infra/aws are enough for a writer and for a reader, and for no more."""

from __future__ import annotations

import json
import uuid

import pytest
from kernel_support import Kernel, quarantine_of, response_of, series

from contracts.errors import CredentialsError
from lake import open as open_lake
from lake.probe import SHORT, probe
from lake.store import Store
from lake.verify import verify


@pytest.fixture
def people(ceph, monkeypatch, project):
    """A bucket whose policy lets a writer and a reader in, as infra/aws/policy.json says."""
    bucket = ceph.make_bucket()
    policies = (project / "infra/aws/policy.json").read_text().replace("BUCKET", bucket)
    policies = json.loads(policies.replace("PREFIX", "lakes"))
    statements, keys = [], {}
    for role in ("writer", "reader"):
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        keys[role] = ceph.make_user(name)
        who = {"Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]}}
        statements += [
            {**each, **who, "Sid": f"{role}{each['Sid']}"} for each in policies[role]["Statement"]
        ]
    # Ceph asks the bucket, S3 each object, whether a request may delete several objects.
    writer = {**statements[0], "Sid": "bulk", "Action": "s3:DeleteObject"}
    statements.append(writer)
    told = {"Version": "2012-10-17", "Statement": statements}
    client = ceph.client()
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(told))
    client.close()

    def become(role):
        for name, value in {**ceph.environment(), **keys[role]}.items():
            monkeypatch.setenv(name, value)

    return f"s3://{bucket}", become


def test_a_writer_writes_and_a_reader_only_reads(people):
    bucket, become = people
    root = f"{bucket}/lakes"
    become("writer")
    kernel = Kernel(root)
    kernel.land(response_of(b"[1]"))
    kernel.quarantine(quarantine_of([1]))
    kernel.publish(series(range(20)))
    kernel.observe(0, 20)
    manifest = kernel.snapshot()
    kernel.store.put("large", bytes(33 << 20))
    kernel.store.delete("large")
    assert kernel.store.sizes("leases") == {}
    with pytest.raises(CredentialsError, match="denies"):
        Store(f"{bucket}/elsewhere").put("a", b"1")

    become("reader")
    lk = open_lake(root, snapshot=manifest.snapshot_id)
    assert lk.bars("*", timeframe="1m").collect().height == 20
    assert open_lake(root).bars("*", timeframe="1m").collect().height == 20
    reader = Store(root)
    assert verify(reader, manifest, level="deep").files
    assert reader.get("nothing") is None
    assert reader.size("nothing") is None
    for refused in (
        lambda: reader.put("a", b"1"),
        lambda: reader.create("a", b"1"),
        lambda: reader.delete("lake.json"),
        lambda: probe(reader, sizes=SHORT[:1]),
        lambda: Kernel(root).publish(series(range(21))),
    ):
        with pytest.raises(CredentialsError, match=r"denies.*policy\.json"):
            refused()
    assert reader.get("lake.json") is not None
