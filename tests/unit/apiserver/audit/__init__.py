"""Tests of tiphys_apiserver.audit."""
