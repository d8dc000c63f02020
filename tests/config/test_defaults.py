"""The settings that no component owns."""

from __future__ import annotations

import pytest

from t2sda.config import ConfigError, load_config


def test_defaults_that_no_component_owns() -> None:
    cfg = load_config(None)
    assert (cfg.OUTPUT_DIR, cfg.SEED, cfg.DEVICE) == ("output", 0, "auto")


def test_devices_and_seeds_are_checked() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["DEVICE", "gpu", "SEED", "-1"])
    assert caught.value.problems == [
        "DEVICE: found 'gpu' (command line); must be one of 'cpu', 'auto', 'cuda'",
        "SEED: found -1 (command line); must be in [0, 9223372036854775807]",
    ]
