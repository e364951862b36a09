"""The configuration that the flags ask for."""

from __future__ import annotations

from pathlib import Path

from tiphys_apimachinery.codec import yaml_codec
from tiphys_apimachinery.errors import APIError
from tiphys_component.app import StartupError
from tiphys_scheduler.configuration.kube import configuration
from tiphys_scheduler.configuration.model import Configuration, ProfileConfig
from tiphys_scheduler.configuration.policy import AlgorithmProviders, policy
from tiphys_scheduler.configuration.reader import ConfigurationError, Reader, read_strictly
from tiphys_scheduler.options import Options


def configuration_of(options: Options) -> Configuration:
    """Reads the file of --config or --policy-config-file, or takes a provider by name. Raises StartupError."""
    try:
        if options.config:
            return parse(Path(options.config).read_bytes())
        if options.policy_config_file:
            return parse(Path(options.policy_config_file).read_bytes())
        if options.algorithm_provider:
            return Configuration((AlgorithmProviders().profile(options.algorithm_provider),))
    except (OSError, ValueError, APIError) as err:
        raise StartupError(f"configuration of the scheduler: {err}") from err
    return Configuration((ProfileConfig(options.scheduler_name),))


def parse(text: bytes) -> Configuration:
    """A KubeSchedulerConfiguration or a Policy, YAML or JSON. Raises ConfigurationError with all that is wrong."""
    value = yaml_codec.parse(text)

    def read(reader: Reader) -> Configuration:
        kind = reader.raw("kind")
        if kind not in ("KubeSchedulerConfiguration", "Policy"):
            raise ConfigurationError(f"kind: Invalid value: {kind!r}: must be KubeSchedulerConfiguration or Policy")
        return policy(reader) if kind == "Policy" else configuration(reader)

    found: Configuration = read_strictly(value, read)
    return found
