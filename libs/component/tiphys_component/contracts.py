"""The published contracts as reflection shows them: read from the descriptor set when somebody asks, not imported."""

from __future__ import annotations

import importlib.resources
from functools import cached_property

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor


class ContractPool:
    """What grpc_reflection asks a DescriptorPool for: our contracts first, then what the process has imported."""

    @cached_property
    def _contracts(self) -> descriptor_pool.DescriptorPool:
        data = importlib.resources.files("tiphys").joinpath("descriptors.binpb").read_bytes()
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            pool.AddSerializedFile(file.SerializeToString())
        return pool

    def FindFileByName(self, name: str) -> FileDescriptor:
        """Raises KeyError."""
        try:
            return self._contracts.FindFileByName(name)
        except KeyError:
            return descriptor_pool.Default().FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Raises KeyError."""
        try:
            return self._contracts.FindFileContainingSymbol(symbol)
        except KeyError:
            return descriptor_pool.Default().FindFileContainingSymbol(symbol)

    def FindMessageTypeByName(self, name: str) -> Descriptor:
        """Raises KeyError."""
        try:
            return self._contracts.FindMessageTypeByName(name)
        except KeyError:
            return descriptor_pool.Default().FindMessageTypeByName(name)

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:
        """Raises KeyError. The message must come from this pool."""
        return self._contracts.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:
        """The message must come from this pool."""
        return list(self._contracts.FindAllExtensions(message))
