"""The store in memory, for tests and simulation: nothing survives the process."""
