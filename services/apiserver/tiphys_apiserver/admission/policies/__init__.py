"""Admission by policies: CEL that writes must fulfil."""
