"""Configuration: a typed schema in front, fvcore's CfgNode with the resolved values behind it."""

from t2sda.config import defaults as defaults  # declares the settings that no component owns
from t2sda.config.errors import ConfigError
from t2sda.config.fields import Field, unpaired_sizes
from t2sda.config.files import find_config, shipped_configs
from t2sda.config.loading import (
    changed_keys,
    config_from_mapping,
    config_to_mapping,
    dump_config,
    load_config,
    network_config,
    plugins_named,
    read_config_file,
)
from t2sda.config.reference import reference_markdown
from t2sda.config.schema import SCHEMA, Schema

__all__ = [
    "SCHEMA",
    "ConfigError",
    "Field",
    "Schema",
    "changed_keys",
    "config_from_mapping",
    "config_to_mapping",
    "dump_config",
    "find_config",
    "load_config",
    "network_config",
    "plugins_named",
    "read_config_file",
    "reference_markdown",
    "shipped_configs",
    "unpaired_sizes",
]
