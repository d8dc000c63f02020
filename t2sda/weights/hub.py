"""iopath's handler of `hf://OWNER/NAME`: weights of the Hugging Face hub, or of its local cache."""

from __future__ import annotations

from typing import Any

from iopath.common.file_io import PathHandler

from t2sda.errors import UserError

HUB_PREFIX = "hf://"
# What repositories call their one weights file, the safe format first.
FILE_NAMES = ("model.safetensors", "pytorch_model.bin")


class HubHandler(PathHandler):
    """The weights file of a repository; what is in the local cache is not asked for again."""

    def _get_supported_prefixes(self) -> list[str]:
        return [HUB_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        repository = path.removeprefix(HUB_PREFIX).strip("/")
        if repository.count("/") != 1:
            raise UserError(f"weights '{path}': expected {HUB_PREFIX}OWNER/NAME")
        # Imported on first use: only these sources need it.
        from huggingface_hub import errors

        try:
            return _cached(repository) or _downloaded(repository)
        except errors.HFValidationError as error:
            raise UserError(f"weights '{path}': {error}") from error


def _cached(repository: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name) for name in FILE_NAMES]
    return next((path for path in found if isinstance(path, str)), None)


def _downloaded(repository: str) -> str:
    """The path in the cache after the download.

    Raises:
        UserError: without a network, or if the repository or its weights file is not there, or
            the hub or the disk refuses.
    """
    from huggingface_hub import errors, hf_hub_download

    where = f"weights '{HUB_PREFIX}{repository}'"
    for name in FILE_NAMES:
        try:
            return hf_hub_download(repository, name)
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
            raise UserError(
                f"{where}: not in the local cache, and the hub cannot be reached. Fetch it where "
                f"there is a network (hf download {repository}) and copy the cache, or set "
                f"MODEL.BACKBONE.WEIGHTS to the path of the file, or to '' for random weights"
            ) from None
        except errors.GatedRepoError:
            raise UserError(
                f"{where}: the hub wants you to accept this repository's terms first, on "
                f"huggingface.co/{repository}, and then `hf auth login`"
            ) from None
        except errors.RepositoryNotFoundError:
            raise UserError(
                f"{where}: the hub has no such public repository; check owner and name"
            ) from None
        except errors.EntryNotFoundError:
            continue
        except OSError as error:  # any other answer of the hub is one, and a full disk
            raise UserError(f"{where}: {error}") from error
    raise UserError(f"{where}: the repository has no file {' or '.join(FILE_NAMES)}")
