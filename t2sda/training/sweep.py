"""Many runs from one file: configurations, settings and seeds, each run in a folder of its own.

The file is YAML:

    output_dir: runs/proof
    seeds: [0, 1, 2]                  # of all runs; without it each configuration's own
    set: {SOLVER.MAX_ITER: 1000}      # for all runs
    runs:
      source_only: {config: source_only.yaml}
      t2sda:
        config: t2sda.yaml
        set: {T2SDA.PULL_WEIGHT: 0.1}
        grid: {T2SDA.TEMPERATURE: [0.1, 0.2]}   # a run for each combination
        weights: source_only          # its student of the same seed, or of its only one
        labels: {of: source_only, rule: cbst}   # pseudo-labels made by it; see sweep_labels.py
        seeds: [0]
    executor: {timeout_min: 600, gpus_per_node: 1, slurm_partition: gpu}   # submitit's parameters

A run's folder is OUTPUT_DIR/NAME/seed_N. What its folder holds says how far it is, so a sweep that
was killed goes on where it was, on this machine or another that shares the folder.
"""

from __future__ import annotations

import itertools
import json
import shlex
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fvcore.common.config import CfgNode

from t2sda.config import (
    SCHEMA,
    ConfigError,
    config_to_mapping,
    load_config,
    plugins_named,
    read_config_file,
)
from t2sda.config.errors import shown
from t2sda.config.schema import flat_items
from t2sda.config.yaml_text import Tree, is_plain, plain, read_section
from t2sda.data.dataset_files import check_datasets_known
from t2sda.engine.checkpoint import checkpoint_path, checkpoints_in
from t2sda.errors import UserError
from t2sda.files import is_missing, is_written_to, user_path
from t2sda.logs import LOG_NAME, last_error
from t2sda.registry import check_registered, nearest_first
from t2sda.training.folder import CONFIG_NAME
from t2sda.training.record import FILE_NAME as RECORD_NAME
from t2sda.training.record import sessions_of
from t2sda.training.resuming import HARMLESS_CHANGES
from t2sda.training.sweep_labels import FOLDER, labels_of

State = Literal["done", "running", "failed", "stopped", "waiting"]
KEYS = ("output_dir", "runs", "seeds", "set", "plugins", "executor")
RUN_KEYS = ("config", "set", "grid", "seeds", "weights", "labels", "needs")
KINDS: Mapping[type, str] = {str: "text", list: "a list", dict: "`name: value` lines"}
JOBS_FOLDER = "jobs"
"""Beside the runs: what submitit writes."""
LONGEST_NAME = 200
"""Bytes of a run's name; a file system takes 255."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: NAME/seed_N, its folder below that of the sweep.
        cfg: resolved.
        arguments: of `t2sda train`; with --resume, so they serve its first start and all others.
        needs: names of runs that must be done before.
        label_arguments: of `t2sda pseudo-label`, which comes before the training; empty: none.
    """

    name: str
    cfg: CfgNode
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    label_arguments: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def command(self) -> str:
        """As one would type it."""
        training = shlex.join(["t2sda", "train", *self.arguments])
        if not self.label_arguments:
            return training
        return f"{shlex.join(['t2sda', 'pseudo-label', *self.label_arguments])} && {training}"

    @property
    def iteration(self) -> int:
        """Steps that its newest checkpoint holds; 0 without one."""
        found = checkpoints_in(self.folder)
        return int(found[-1].stem.partition("_")[2]) if found else 0

    @property
    def state(self) -> State:
        """How far it is, by what its folder holds."""
        if is_written_to(self.folder) or is_written_to(self.folder / FOLDER):
            return "running"
        if self.is_done:
            return "done"
        if self.error:
            return "failed"
        return "stopped" if self.iteration else "waiting"

    @property
    def is_done(self) -> bool:
        """Whether it took all its steps, or ended before them as a hook asked for."""
        if checkpoint_path(self.folder, self.cfg.SOLVER.MAX_ITER).exists():
            return True
        sessions = sessions_of(self.folder / RECORD_NAME)
        last = sessions[-1] if sessions else {}
        return last.get("ended_by_hook") is True and last.get("next_iteration") == self.iteration

    @property
    def changes(self) -> list[str]:
        """What was set otherwise when it ran, as far as numbers follow from it.

        A setting that was not there then had what is its default now.
        """
        path = self.folder / CONFIG_NAME
        if is_missing(path):
            return []
        defaults = dict(flat_items(config_to_mapping(SCHEMA.build({}))))
        then = defaults | dict(flat_items(read_config_file(path)))
        now = dict(flat_items(config_to_mapping(self.cfg)))
        return [
            f"{key} was {shown(then.get(key))}, is {shown(now.get(key))}"
            for key in then | now
            if then.get(key) != now.get(key) and not key.startswith(HARMLESS_CHANGES)
        ]

    @property
    def error(self) -> str:
        """What ended it, if its log ends with an error."""
        return last_error(self.folder / LOG_NAME)


@dataclass(frozen=True)
class Sweep:
    """The runs of a file, in its order.

    Attributes:
        output_dir: the folder of all.
        executor: parameters for submitit's `update_parameters`.
    """

    output_dir: Path
    runs: tuple[SweepRun, ...]
    executor: Mapping[str, Any] = field(default_factory=dict)


def read_sweep(path: Path) -> Sweep:
    """The runs of a sweep file, every configuration resolved and checked.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it cannot be used, with file, line and remedy.
        ConfigError: if a run's settings do not fit together.
    """
    return _Reader(path).sweep()


def read_plugins(path: Path) -> list[str]:
    """The plugins of a sweep file and of its configurations, which `read_sweep` needs loaded.

    Raises what that does.
    """
    return _Reader(path).all_plugins()


class _Reader:
    """One file's keys, checked and turned into runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = tree = read_section(path, "sweep file", ("output_dir", "runs"))
        self._refuse_unknown(tree, KEYS)
        for key in ("output_dir", "runs"):
            if key not in tree:
                raise UserError(f"{path}: `{key}` is missing; a sweep file needs it")
        if self.tree["runs"].value == {}:
            raise UserError(
                f"{self.tree['runs'].where}: runs: there is none; give NAME: {{config: FILE}}"
            )

    def plugins(self) -> list[str]:
        """Modules and files that its runs are started with."""
        return self._texts(self.tree, "plugins")

    def all_plugins(self) -> list[str]:
        """These, and those that the configurations name."""
        found = [*self.plugins()]
        for entry in self._section(self.tree, "runs").values():
            tree = entry.value if isinstance(entry.value, dict) else {}
            config = self._value(tree, "config", str, None)
            found += plugins_named(config) if config is not None else []
        return list(dict.fromkeys(found))

    def sweep(self) -> Sweep:
        """All runs; whoever needs another comes behind it."""
        output_dir = user_path(self._value(self.tree, "output_dir", str, ""), "output_dir")
        runs: dict[str, SweepRun] = {}
        for name, entry in self._section(self.tree, "runs").items():
            if not isinstance(entry.value, dict) or "config" not in entry.value:
                raise UserError(f"{entry.where}: run '{name}': give it `config: FILE`")
            self._refuse_unknown(entry.value, RUN_KEYS)
            _check_name(name, entry.where)
            for run in self._variants(name, entry.value, output_dir, runs):
                if run.name in runs:
                    raise UserError(
                        f"{entry.where}: two runs are called '{run.name}', and one folder takes "
                        f"one; give every value and seed once, or the run another name"
                    )
                runs[run.name] = run
        return Sweep(output_dir, tuple(runs.values()), plain(self._section(self.tree, "executor")))

    def _variants(
        self, name: str, tree: Tree, output_dir: Path, before: Mapping[str, SweepRun]
    ) -> Iterator[SweepRun]:
        """A run for each combination of the grid and each seed."""
        common, own = self._settings(self.tree, "set"), self._settings(tree, "set")
        grid = self._settings(tree, "grid")
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise UserError(f"{tree['grid'].where}: grid: {key}: give a list of values")
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            full_name = ",".join([name, *(_in_name(key, v) for key, v in chosen.items())])
            _check_name(full_name, tree["grid"].where if chosen else tree["config"].where)
            for seed in self._seeds(tree):
                settings = common | own | chosen
                if seed is not None:
                    if "SEED" in settings:
                        raise UserError(
                            f"{self.path}: run '{name}': SEED is set beside seeds; give one of them"
                        )
                    settings["SEED"] = seed
                below = full_name if seed is None else f"{full_name}/seed_{seed}"
                yield self._run(below, seed, tree, settings, output_dir, before)

    def _run(
        self,
        name: str,
        seed: int | None,
        tree: Tree,
        settings: Mapping[str, Any],
        output_dir: Path,
        before: Mapping[str, SweepRun],
    ) -> SweepRun:
        config = self._value(tree, "config", str, "")
        weights = self._value(tree, "weights", str, None)
        labels = self._section(tree, "labels")
        options = {key: value for key, value in plain(labels).items() if key != "of"}
        labeller = self._value(labels, "of", str, weights) if "labels" in tree else None
        needs = [*self._texts(tree, "needs"), *filter(None, [labeller, weights])]
        found = {other: self._needed(other, seed, name, before) for other in needs}
        folder = output_dir / name
        label_arguments: tuple[str, ...] = ()
        try:
            cfg = self._resolved(config, settings, folder)
            check_datasets_known(cfg)
            if "labels" in tree:
                if labeller is None:
                    raise UserError("labels: `of` is missing: the run whose network labels")
                of = found[labeller].folder
                label_arguments, own = labels_of(cfg, options, of, folder, self.plugins())
                settings = {**settings, **own}
                cfg = self._resolved(config, settings, folder)
        except ConfigError as error:
            raise ConfigError(f"run '{name}': {problem}" for problem in error.problems) from None
        except UserError as error:
            raise UserError(f"{self.path}: run '{name}': {error}") from None
        arguments = ["--config-file", config, "--output-dir", str(folder), "--resume"]
        arguments += [word for plugin in self.plugins() for word in ("--plugin", plugin)]
        if weights is not None:
            arguments += ["--weights", str(found[weights].folder)]
        needed = tuple(run.name for run in found.values())
        return SweepRun(name, cfg, (*arguments, *_pairs(settings)), needed, label_arguments)

    @staticmethod
    def _resolved(config: str, settings: Mapping[str, Any], folder: Path) -> CfgNode:
        cfg = load_config(config, _pairs({**settings, "OUTPUT_DIR": str(folder)}))
        check_registered(cfg)
        return cfg

    def _needed(
        self, other: str, seed: int | None, name: str, before: Mapping[str, SweepRun]
    ) -> SweepRun:
        """The run of that name with the same seed, or the only one there is."""
        if f"{other}/seed_{seed}" in before:
            return before[f"{other}/seed_{seed}"]
        runs = [run for key, run in before.items() if key.split("/")[0] == other]
        if len(runs) == 1:
            return runs[0]
        known = ", ".join(nearest_first(other, sorted({key.split("/")[0] for key in before})))
        raise UserError(
            f"{self.path}: run '{name}' needs '{other}', "
            + (
                "which has several seeds; give both the same ones"
                if runs and seed is None
                else f"which has no seed {seed}; give both the same seeds"
                if runs
                else f"which no run before it is called; there are: {known or 'none'}"
            )
        )

    def _seeds(self, tree: Tree) -> Sequence[int | None]:
        key_of = tree if "seeds" in tree else self.tree
        seeds = self._value(key_of, "seeds", list, [None])
        if not all(seed is None or type(seed) is int for seed in seeds) or not seeds:
            raise UserError(f"{key_of['seeds'].where}: seeds: give a list of whole numbers")
        return seeds

    def _settings(self, tree: Tree, key: str) -> dict[str, Any]:
        """A section's values by the keys of settings."""
        settings = dict(flat_items(plain(self._section(tree, key))))
        for name, value in settings.items():
            problem = None
            if name == "OUTPUT_DIR":
                problem = "follows from output_dir and the run's name; delete it here"
            elif name == "PLUGINS":
                problem = "give them as `plugins` of the sweep file"
            elif not is_plain(value):
                problem = f"found {shown(value)}, which is no plain value; quote it"
            if problem is not None:
                raise UserError(f"{tree[key].where}: {key}: {name}: {problem}")
        return settings

    def _texts(self, tree: Tree, key: str) -> list[str]:
        texts: list[str] = self._value(tree, key, list, [])
        if not all(isinstance(text, str) and text for text in texts):
            raise UserError(f"{tree[key].where}: {key}: found {shown(texts)}; must be texts")
        return texts

    def _section(self, tree: Tree, key: str) -> Tree:
        return self._value(tree, key, dict, {})

    @staticmethod
    def _value(tree: Tree, key: str, kind: type, default: Any) -> Any:
        if key not in tree:
            return default
        value = tree[key].value
        if not isinstance(value, kind) or value == "":
            raise UserError(
                f"{tree[key].where}: {key}: found {shown(value)}; must be {KINDS[kind]}"
            )
        return value

    @staticmethod
    def _refuse_unknown(tree: Tree, known: Sequence[str]) -> None:
        for key, entry in tree.items():
            if key not in known:
                near = nearest_first(key, list(known))[0]
                raise UserError(f"{entry.where}: unknown key '{key}'; nearest known: {near}")


def _pairs(settings: Mapping[str, Any]) -> list[str]:
    """KEY=VALUE of every setting."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _in_name(key: str, value: Any) -> str:
    """A grid's value in a run's name; what a folder's name cannot have is written as %XX."""
    text = f"{key.rpartition('.')[2]}={value}"
    return "".join(
        letter if letter.isprintable() and letter not in "/%" else urllib.parse.quote(letter, "")
        for letter in text
    )


def _check_name(name: str, where: str) -> None:
    """Raise UserError unless a run may be called so: the name is that of its folder."""
    problem = None
    if not name.strip() or name.startswith((".", "-")) or "/" in name or not name.isprintable():
        problem = (
            "a folder gets it: give printable text without `/`, and no dot or dash at its beginning"
        )
    elif name == JOBS_FOLDER:
        problem = "the folder of this name holds what submitit writes; give another"
    elif len(name.encode()) > LONGEST_NAME:
        problem = f"it has {len(name.encode())} bytes; give a name of at most {LONGEST_NAME}"
    if problem is not None:
        raise UserError(f"{where}: run {shown(name)}: {problem}")
