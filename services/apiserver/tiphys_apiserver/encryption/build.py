"""Builds the encryption that the options ask for. Imported only where they do."""

from __future__ import annotations

from pathlib import Path

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.encryption.configuration import Configuration, ConfigurationError, read_configuration
from tiphys_apiserver.encryption.kms import make_kms
from tiphys_apiserver.encryption.store import EncryptedStore
from tiphys_apiserver.security_options import SecurityOptions
from tiphys_apiserver.storage.interface import Store
from tiphys_component.app import StartupError
from tiphys_component.clock import Clock
from tiphys_component.log import get_logger
from tiphys_component.metrics import Registry

_FLAG = "--encryption-provider-config"
_log = get_logger(__name__)


def build_encryption(
    options: SecurityOptions, path: Path, store: Store, *, clock: Clock, metrics: Registry
) -> EncryptedStore:
    """The store with encryption in front, as the file at path says. Raises StartupError."""
    file = _File(path, clock, watched=options.encryption_provider_config_automatic_reload)
    try:
        configuration = file.read()
    except OSError as err:
        raise StartupError(f"{_FLAG}: {path} can't be read: {err.strerror}", "make the file") from err
    except ConfigurationError as err:
        raise StartupError(f"{_FLAG}: {path} can't be used: {err}", "correct the file") from err
    return EncryptedStore(store, configuration, reload=file.changed, clock=clock, metrics=metrics)


class _File:
    """The configuration's file, read again when it changes if that is wanted."""

    def __init__(self, path: Path, clock: Clock, *, watched: bool) -> None:
        self._clock = clock
        self._path = path
        self._watched = watched
        self._content = b""

    def read(self) -> Configuration:
        """What it says. Raises OSError and ConfigurationError."""
        self._content = self._path.read_bytes()
        return read_configuration(self._content, load_default(), lambda settings: make_kms(settings, self._clock))

    def changed(self) -> Configuration | None:
        """What it says now, None where that is the same or can't be used."""
        if not self._watched:
            return None
        try:
            if self._path.read_bytes() == self._content:
                return None
            return self.read()
        except (OSError, ConfigurationError) as err:
            # The one in use goes on; who changes the file sees why.
            _log.error("encryption configuration can't be reloaded", path=str(self._path), err=str(err))
            return None
