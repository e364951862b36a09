"""Tests of tiphys_apiserver.encryption."""
