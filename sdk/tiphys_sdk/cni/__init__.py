"""A CNI plugin in a few lines: verbs as functions, everything else done here."""
