"""Admission plug-ins, one a file, mutating or validating."""
