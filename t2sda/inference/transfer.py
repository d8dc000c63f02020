"""Where the bytes of `t2sda infer` come from and go to: this machine, or URLs by way of it.

What is behind URLs is mirrored: a temporary folder gets an empty file for each of theirs, so that
all other code sees paths. A file gets its content shortly before it is decoded and loses it when
that is done; a result is uploaded as soon as it is written, then removed here. The record of what
is finished follows every few seconds: a killed run repeats what it did since then, loses nothing.
"""

from __future__ import annotations

import errno
import re
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from t2sda.errors import UserError
from t2sda.files import is_regular_file
from t2sda.images.finding import WILDCARD, alternatives, fixed_folder
from t2sda.inference.remote import NotThereError, RemoteFile, Store, is_url, scheme_of
from t2sda.inference.shards import DONE_NAME
from t2sda.inference.shares import (
    LEGEND_NAME,
    RECORD_NAME,
    SHARDS_NAME,
    SHARES_NAME,
    Stamp,
    stamp_of,
)
from t2sda.inference.sources import Source, absolute

CONNECTIONS = 8
"""Downloads at once; and uploads."""
AHEAD = 16
"""Images that are on their way, or wait as files, while others are worked on."""
FEW = 8
"""Files of one folder that are asked for one by one; for more of them it is listed."""
SECONDS_BETWEEN_RECORDS = 10.0
MOST_TIME_FOR_RECORDS = 0.05
NO_FILE_NAMES = "names that no file here can have"
_NOT_HERE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ)


class Transfer:
    """Paths of this machine stay what they are; URLs get a path here. A context manager.

    Whatever UserError leaves it names URLs, not paths below its temporary folder.
    """

    def __init__(self) -> None:
        self.passed_over: Counter[str] = Counter()
        """Files behind URLs that got no path: kind -> how many."""
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._called: dict[str, str] = {}
        self._stores: dict[str, Store] = {}
        self._files: dict[Path, RemoteFile] = {}
        self._coming: dict[Path, Future[None]] = {}
        self._output: tuple[Path, str] | None = None
        self._results: dict[str, RemoteFile] | None = None
        self._next_record = 0.0
        self._uploads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="uploads")

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._uploads.shutdown(cancel_futures=True)
        if isinstance(error, UserError):
            error.args = (self.shown(str(error)),)
        self._stack.close()

    def call(self, path: Path, name: str) -> None:
        """A file of this machine is shown by a name that users know."""
        self._called[str(path)] = name

    def shown(self, text: object) -> str:
        """Text with URLs, and names given with `call`, in place of paths that stand for them."""
        shown = str(text)
        for path, name in self._called.items():
            shown = shown.replace(path, name)
        if self._folder is None:
            return shown
        return re.sub(f"{re.escape(str(self._folder))}/([a-z0-9+.-]+)/", r"\1://", shown)

    def inputs(self, names: Sequence[str]) -> list[str]:
        """Names of files, folders and patterns: those that are URLs as paths of the mirror.

        Raises:
            MissingFileError: if a URL names nothing.
            UserError: if its file system is not known, needs a package, or refuses.
        """
        paths = [str(self._path(name)) if is_url(name) else name for name in names]
        patterns = [name for name in names if is_url(name) and _is_pattern(name)]
        alone: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if is_url(name) and not _is_pattern(name):
                alone[name.rstrip("/").rpartition("/")[0]].append(name)
        for root in dict.fromkeys(map(_fixed_url, patterns)):
            self._mirror(root, self._store(root).find(root))
        for folder, urls in alone.items():
            self._mirror_alone(folder, urls)
        return paths

    def place(self, path: Path) -> Path:
        """Where a file lies for the name of its results: of s3://BUCKET/FOLDER /s3/BUCKET/FOLDER.

        Not below the temporary folder, whose name is another in every run and every shard.
        """
        place = absolute(path)
        if self._folder is None or self._folder not in place.parents:
            return place
        return Path("/") / place.relative_to(self._folder)

    def ahead(self, sources: Iterable[Source]) -> Iterator[Source]:
        """The sources, in their order; downloads of the next AHEAD of them have begun."""
        waiting: deque[Source] = deque()
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="downloads") as pool:
            try:
                for source in sources:
                    if source.path in self._files:
                        self._coming[source.path] = pool.submit(self._fetch, source.path)
                    waiting.append(source)
                    if len(waiting) > AHEAD:
                        yield waiting.popleft()
                yield from waiting
            except GeneratorExit:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    @contextmanager
    def here(self, path: Path) -> Iterator[None]:
        """The file has its content within.

        Raises:
            MissingFileError, UnreadableFileError: if it does not come.
        """
        if path not in self._files:
            yield
            return
        coming = self._coming.pop(path, None)
        try:
            self._fetch(path) if coming is None else coming.result()
            yield
        finally:
            path.write_bytes(b"")

    def stamp(self, path: Path) -> Stamp | None:
        """Which file it is, and its state; None if that is not known."""
        file = self._files.get(path)
        if file is None:
            return stamp_of(path)
        return [file.url, file.size or 0, file.stamp] if file.stamp else None

    def output(self, name: str) -> Path:
        """The folder for results: itself, or that which stands for a URL.

        It has the folders of shards that are there, their files empty until `pull`.
        """
        if not name:
            raise UserError("the folder for results: its name is empty; name a folder or a URL")
        if not is_url(name):
            return Path(name)
        folder = self._path(name)
        url = name.rstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder, url
        with suppress(NotThereError):
            shards = f"{url}/{SHARDS_NAME}"
            self._mirror(shards, self._store(url).find(shards), with_records=False)
        return folder

    def pull(self, paths: Iterable[Path]) -> None:
        """Give files of the output folder the content that they have behind its URL, if any."""
        for path in paths if self._output else ():
            with suppress(NotThereError):
                url = self._url(path)
                file = self._store(url).find(url).get("")
                if file is not None:
                    self._store(url).download(file, path)

    @contextmanager
    def recording(self, folder: Path, resume: bool) -> Iterator[None]:
        """Within, a run writes its record and summary to `folder`, that of results or of a shard.

        What an earlier run summed up is removed first; a record is there from an earlier run if
        `resume`. All is uploaded at the end, after an error the record alone.
        """
        if self._output is None:
            yield
            return
        if resume:
            self.pull([folder / RECORD_NAME])
        for name in (DONE_NAME, LEGEND_NAME, SHARES_NAME):
            url = self._url(folder / name)
            self._store(url).remove(url)
        try:
            yield
        except BaseException:
            with suppress(UserError):
                self._upload_if_there(folder / RECORD_NAME)
            raise
        for name in (RECORD_NAME, LEGEND_NAME, SHARES_NAME, DONE_NAME):
            self._upload_if_there(folder / name)

    def note(self, record: Path) -> None:
        """Upload a record again, unless that was done a short time ago."""
        began = time.monotonic()
        if self._output is None or began < self._next_record:
            return
        self._upload_if_there(record)
        now = time.monotonic()
        pause = max(SECONDS_BETWEEN_RECORDS, (now - began) / MOST_TIME_FOR_RECORDS)
        self._next_record = now + pause

    def deliver(self, paths: Sequence[Path]) -> None:
        """Results are written: upload them, and remove them here.

        Raises:
            UserError: if that does not succeed.
        """
        if self._output is not None:
            list(self._uploads.map(self._deliver, paths))

    def is_finished(self, paths: Sequence[Path]) -> bool:
        """Whether results are there; a disk that failed later may have left nothing but names."""
        if self._output is None:
            return all(is_regular_file(path) and path.stat().st_size for path in paths)
        folder, url = self._output
        if self._results is None:
            self._results = self._store(url).find(url)
        found = (self._results.get(path.relative_to(folder).as_posix()) for path in paths)
        return all(file is not None and file.size for file in found)

    def _mirror_alone(self, folder: str, urls: Sequence[str]) -> None:
        listed = self._store(folder).beside(folder) if len(urls) > FEW else {}
        for url in urls:
            name = url.rpartition("/")[2]
            found = {"": listed[name]} if name in listed else self._store(url).find(url)
            self._mirror(url, found)

    def _mirror(self, url: str, found: dict[str, RemoteFile], *, with_records: bool = True) -> None:
        """Empty files in the place of `found`, files below a URL; records with their content."""
        root = self._path(url)
        for name, file in found.items():
            path = root / name
            if not _made(root, name):
                self.passed_over[NO_FILE_NAMES] += 1
                continue
            if with_records:
                self._files[path] = file
                if path.name == RECORD_NAME:  # it says what beside it is a result, not an image
                    self._fetch(path)

    def _fetch(self, path: Path) -> None:
        file = self._files[path]
        self._files[path] = self._store(file.url).download(file, path)

    def _deliver(self, path: Path) -> None:
        self._upload_if_there(path)
        path.unlink()

    def _upload_if_there(self, path: Path) -> None:
        if is_regular_file(path):
            url = self._url(path)
            self._store(url).upload(path, url)

    def _url(self, path: Path) -> str:
        """Of a file of the output folder."""
        assert self._output is not None
        folder, url = self._output
        return f"{url}/{path.relative_to(folder).as_posix()}"

    def _store(self, url: str) -> Store:
        scheme = scheme_of(url)
        if scheme not in self._stores:
            self._stores[scheme] = Store(scheme)
        return self._stores[scheme]

    def _path(self, url: str) -> Path:
        """Where the mirror has it."""
        if self._folder is None:
            name = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="t2sda-"))
            self._folder = Path(name).resolve()
        scheme, rest = scheme_of(url), url.partition("://")[2]
        if ".." in rest.split("/") or "\0" in rest or not rest.strip("/"):
            raise UserError(f"{url}: names no file or folder; write {scheme}://BUCKET/FOLDER")
        return self._folder / scheme / rest.lstrip("/")


def _is_pattern(url: str) -> bool:
    rest = url.partition("://")[2]
    return bool(WILDCARD.search(rest)) or len(alternatives(rest)) > 1


def _fixed_url(pattern: str) -> str:
    """What a pattern begins with, before its first wildcard."""
    scheme, _, rest = pattern.partition("://")
    fixed = fixed_folder(rest.lstrip("/")).as_posix()
    if fixed == ".":
        raise UserError(f"{pattern}: name the bucket, without wildcards")
    return f"{scheme}://{fixed}"


def _made(root: Path, name: str) -> bool:
    """Make an empty file below a folder, or in its place; False where none can have its name."""
    path = root / name
    if "\0" in name or (name and not {"", ".", ".."}.isdisjoint(name.split("/"))):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            return False
        path.touch()
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    return True
