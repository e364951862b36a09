"""The bench for CNI plugins: verbs in scratch network namespaces, held against the specification."""
