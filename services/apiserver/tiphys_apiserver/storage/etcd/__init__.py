"""The distributed engine: etcd 3.4 and 3.5 over generated stubs (docs/adr/0002-etcd-client.md)."""
