"""Tests of tiphys_apiserver.crd."""
