"""OpenAPI documents compiled from descriptors: version 2 as JSON and protobuf, version 3 per group-version."""
