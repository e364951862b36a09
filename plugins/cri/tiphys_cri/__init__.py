"""The client of container runtimes (CRI v1, containerd) and a runtime in memory for tests."""
