"""A whole cluster in one process, for tests: real control plane, nodes without a runtime, a clock of one's own."""
