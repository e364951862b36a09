"""Objects as bytes and back: protobuf, JSON, YAML, tables."""
