"""iopath's handler of `timm://NAME`: where timm keeps the pretrained weights of a network."""

from __future__ import annotations

from typing import Any

from iopath.common.file_io import PathHandler

from t2sda.errors import UserError
from t2sda.modeling.backbones.timm_import import import_timm
from t2sda.registry import nearest_first
from t2sda.weights.hub import HUB_PREFIX
from t2sda.weights.sources import WEIGHT_PATHS

TIMM_PREFIX = "timm://"


class TimmHandler(PathHandler):
    """Looks the network up in timm, which knows its repository on the Hugging Face hub."""

    def _get_supported_prefixes(self) -> list[str]:
        return [TIMM_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return WEIGHT_PATHS.get_local_path(HUB_PREFIX + repository_of(path))


def repository_of(source: str) -> str:
    """`timm://NAME`, with or without the tag of its weights → OWNER/NAME on the hub.

    Raises:
        UserError: if timm has no weights of this name.
    """
    timm = import_timm()
    name = source.removeprefix(TIMM_PREFIX).strip("/")
    try:
        settings = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # of a tag that this network does not have
        settings = None
    if settings is None or not settings.hf_hub_id:
        known = timm.list_pretrained() if "." in name else timm.list_models(pretrained=True)
        nearest = ", ".join(nearest_first(name, known)[:5])
        raise UserError(
            f"weights '{source}': timm {timm.__version__} has no weights of this name on the hub; "
            f"nearest: {nearest}"
        )
    return settings.hf_hub_id


WEIGHT_PATHS.register_handler(TimmHandler())
