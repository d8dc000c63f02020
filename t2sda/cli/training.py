"""Composition of a training run: the only place that knows all of its parts."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from rich.console import Console
from rich.table import Table

from t2sda.cli.plan import plan_text
from t2sda.cli.progress import ConsoleProgress
from t2sda.config import changed_keys, dump_config
from t2sda.data.catalog import open_dataset
from t2sda.data.domains import DomainPairs
from t2sda.data.joined import source_taxonomy
from t2sda.data.loader import DomainLoader
from t2sda.data.replacements import tell
from t2sda.data.samplers import MicroBatchPositions
from t2sda.data.taxonomies import Taxonomy
from t2sda.distributed import barrier, broadcast_from_main_, is_main, rank, world_size
from t2sda.engine.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    check_hook_state,
    check_iteration,
    checkpoints_in,
    load_checkpoint,
    load_weights_,
    resolve_checkpoint,
)
from t2sda.engine.device import lay_out_, use_deterministic_algorithms
from t2sda.engine.evaluation_hook import EvaluationHook
from t2sda.engine.hooks import Hook, RunObjects, build_hooks
from t2sda.engine.metrics import (
    JsonLinesWriter,
    MetricsHook,
    MetricWriter,
    ProgressHook,
    TensorBoardWriter,
    advancing,
    progress_bar,
    standard_console,
)
from t2sda.engine.optim import build_owners, load_optimizers_
from t2sda.engine.precision import Precision
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.errors import UserError
from t2sda.evaluation.evaluator import Progress, Scores, check_classes, evaluate
from t2sda.files import json_text, make_writable_dir, write_whole
from t2sda.meta_arch.base import build_meta_arch, reads_target_labels
from t2sda.modeling.normalization import share_statistics
from t2sda.modeling.segmentor import SegmentationModel, build_segmentation_model
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.signals import stop_on_signals

HARMLESS_CHANGES = ("OUTPUT_DIR", "DATA.NUM_WORKERS", "LOGGING.", "CHECKPOINT.", "EVALUATION.")
"""Settings that a resumed run may change without changing its numbers."""


class TrainingRun:
    """One run in one output folder.

    Args:
        cfg: resolved and frozen.
        device: of this rank.
        resume: go on from the folder's newest checkpoint, if there is one.
        weights: checkpoint or run folder whose student to start from.
    Raises:
        UserError: if the folder holds a run already and `resume` is not set.
    """

    def __init__(
        self, cfg: CfgNode, device: torch.device, *, resume: bool, weights: str | None
    ) -> None:
        self.cfg = cfg
        self.device = device
        self.console = standard_console() if is_main() else Console(quiet=True)
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.first_iteration = 0
        self.last_scores: list[Scores] = []
        self.progress = ProgressHook(cfg.LOGGING.PERIOD, cfg.SOLVER.MAX_ITER, self.console)
        checkpoint = self._checkpoint_to_resume(resume)
        self.console.print(
            plan_text(cfg, world_size()), highlight=False, markup=False, soft_wrap=True
        )
        if cfg.SOLVER.DETERMINISTIC:
            use_deterministic_algorithms()
        torch.manual_seed(cfg.SEED)
        self.pairs = DomainPairs.from_config(
            cfg, ConsoleProgress(self.console), target_labels=reads_target_labels(cfg)
        )
        self.taxonomy = self.pairs.source.taxonomy
        for name in cfg.EVALUATION.DATASETS:  # now, not after hours of training
            check_classes(open_dataset(name), self.taxonomy)
        self.meta_arch = build_meta_arch(cfg, self.taxonomy).to(device)
        if world_size() > 1:
            share_statistics(self.meta_arch)
        lay_out_(self.meta_arch.student, cfg)
        self.owners = build_owners(cfg, self.meta_arch)
        self.hooks = build_hooks(cfg, RunObjects(self.meta_arch, self.output_dir))
        self.precision = Precision(cfg.SOLVER.PRECISION, device)
        if checkpoint is not None:
            self._restore(checkpoint)
        elif weights is not None:
            load_student_(self.meta_arch.student.model, weights, self.taxonomy)
        broadcast_from_main_(self.meta_arch)

    def run(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        trainer = Trainer(
            self.meta_arch,
            self.owners,
            self.precision,
            self._all_hooks(),
            TrainerSettings.from_config(self.cfg),
            self.device,
        )
        make_writable_dir(self.output_dir, "--output-dir")
        if is_main():
            write_whole(self.output_dir / "config.yaml", dump_config(self.cfg))
        self._describe()
        batches = self._batches()
        try:
            with stop_on_signals(trainer.request_stop, self.console.print) as received:
                next_iteration = trainer.run(batches, self.first_iteration)
        except (RuntimeError, EOFError, ConnectionError) as error:
            raise batches.explained(error) from error.__cause__
        finally:
            batches.close()
            self.progress.stop()
            _tell_skipped(batches)
        barrier()
        if next_iteration < self.cfg.SOLVER.MAX_ITER:
            self.console.print(f"stopped after iteration {next_iteration}; go on with --resume")
            return 128 + (received[0] if received else signal.SIGTERM)
        show_scores(self.console, self.last_scores)
        self.console.print(f"finished; the run is in {self.output_dir}", soft_wrap=True)
        return 0

    def _checkpoint_to_resume(self, resume: bool) -> Checkpoint | None:
        found = checkpoints_in(self.output_dir)
        if found and not resume:
            raise UserError(
                f"{self.output_dir} holds a run already ({found[-1].name}); continue it with "
                f"--resume, or choose another folder with --output-dir"
            )
        if not found:
            return None
        checkpoint = load_checkpoint(found[-1])
        check_iteration(checkpoint, self.cfg.SOLVER.MAX_ITER)
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        check_same_classes(checkpoint, self.taxonomy)
        load_weights_(self.meta_arch, checkpoint.meta_arch, checkpoint.path)
        try:
            load_optimizers_(
                self.owners, checkpoint.optimizers, checkpoint.iteration, checkpoint.num_skipped
            )
        except UserError as error:
            raise UserError(f"{checkpoint.path}: {error}") from None
        for name, state in checkpoint.hooks.items():
            if name in self.hooks:
                check_hook_state(self.hooks[name], name, state, checkpoint.path)
                self.hooks[name].load_state_dict(state)
        self.precision.load_scale(checkpoint.scaler)
        self.first_iteration = checkpoint.iteration
        for key, old, new in changed_keys(checkpoint.cfg, self.cfg):
            if not key.startswith(HARMLESS_CHANGES):
                self.console.print(
                    f"note: {key} was {old}, is {new}: the resumed run will differ from an "
                    f"uninterrupted one",
                    soft_wrap=True,
                )

    def _all_hooks(self) -> list[Hook]:
        solver, period = self.cfg.SOLVER, self.cfg.LOGGING.PERIOD
        metrics = MetricsHook(self._writers(), period, solver.MAX_ITER)
        hooks = [*self.hooks.values(), metrics, self._evaluation_hook(metrics)]
        if is_main():
            hooks += [self.progress, self._checkpoint_writer()]
        return hooks

    def _writers(self) -> list[MetricWriter]:
        if not is_main():
            return []
        writers: list[MetricWriter] = [JsonLinesWriter(self.output_dir / "metrics.jsonl")]
        if self.cfg.LOGGING.TENSORBOARD:
            writers.append(TensorBoardWriter(self.output_dir / "tensorboard"))
        return writers

    def _checkpoint_writer(self) -> CheckpointWriter:
        return CheckpointWriter(
            self.output_dir,
            self._state,
            self.cfg,
            self.taxonomy,
            period=self.cfg.CHECKPOINT.PERIOD,
            keep=self.cfg.CHECKPOINT.KEEP,
            max_iter=self.cfg.SOLVER.MAX_ITER,
        )

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds of the live objects."""
        hooks = {name: hook.state_dict() for name, hook in self.hooks.items()}
        return {
            "meta_arch": self.meta_arch.state_dict(),
            "optimizers": {owner.name: owner.optimizer.state_dict() for owner in self.owners},
            "hooks": {name: state for name, state in hooks.items() if state},
            "scaler": self.precision.scaler.state_dict(),
        }

    def _evaluation_hook(self, metrics: MetricsHook) -> EvaluationHook:
        def report(iteration: int, scores: list[Scores]) -> None:
            self.last_scores = scores
            for item in scores:
                metrics.write_evaluation(iteration, item.as_metrics())
                self.console.print(
                    f"iteration {iteration}: {item.dataset} mIoU {100 * item.mean_iou:.1f}",
                    highlight=False,
                )

        return EvaluationHook(
            lambda: evaluate_all(
                self.cfg,
                self.meta_arch.student.model,
                self.taxonomy,
                self.device,
                self.progress.track,
            ),
            report,
            period=self.cfg.EVALUATION.PERIOD if self.cfg.EVALUATION.DATASETS else 0,
            max_iter=self.cfg.SOLVER.MAX_ITER,
        )

    def _batches(self) -> DomainLoader:
        positions = MicroBatchPositions(
            batch_size=self.cfg.SOLVER.BATCH_SIZE,
            accumulation=self.cfg.SOLVER.ACCUMULATION,
            world_size=world_size(),
            rank=rank(),
            first_iteration=self.first_iteration,
            max_iter=self.cfg.SOLVER.MAX_ITER,
        )
        pin = self.device.type == "cuda"
        timeout = self.cfg.DATA.WORKER_TIMEOUT
        return DomainLoader(self.pairs, positions, self.cfg.DATA.NUM_WORKERS, pin, timeout)

    def _describe(self) -> None:
        parameters = sum(p.numel() for p in self.meta_arch.student.parameters())
        target = self.pairs.target
        domains = f"source {self.pairs.source.name} ({len(self.pairs.source)} images)"
        if target is not None:
            domains += f", target {target.name} ({len(target)} images)"
        self.console.print(
            f"{parameters / 1e6:.1f} M student parameters; {domains}; {self.cfg.SOLVER.PRECISION} "
            f"on {self.device}, {world_size()} process(es); "
            f"iterations {self.first_iteration} to {self.cfg.SOLVER.MAX_ITER}",
            highlight=False,
            soft_wrap=True,
        )


def _tell_skipped(batches: DomainLoader) -> None:
    if batches.skipped:
        tell(
            f"DATA.ON_ERROR skip: {batches.skipped.total()} samples were replaced because of "
            f"{len(batches.skipped)} files that cannot be used"
        )


def score(cfg: CfgNode, device: torch.device, weights: str | None) -> list[Scores]:
    """Score a checkpoint's student on EVALUATION.DATASETS; prints and writes evaluation.json."""
    if not cfg.EVALUATION.DATASETS:
        raise UserError("EVALUATION.DATASETS: empty, so there is nothing to score on; name some")
    console = standard_console() if is_main() else Console(quiet=True)
    taxonomy = source_taxonomy(cfg)
    untrained = cfg.clone()
    untrained.defrost()
    untrained.MODEL.BACKBONE.WEIGHTS = ""  # the checkpoint holds every weight
    model = build_segmentation_model(untrained, taxonomy.num_classes).to(device)
    load_student_(model, weights or cfg.OUTPUT_DIR, taxonomy)
    with progress_bar(console) as bar:
        scores = evaluate_all(cfg, model, taxonomy, device, functools.partial(advancing, bar))
    show_scores(console, scores)
    if is_main():
        make_writable_dir(Path(cfg.OUTPUT_DIR), "--output-dir")
        report = {key: value for item in scores for key, value in item.as_metrics().items()}
        path = Path(cfg.OUTPUT_DIR) / "evaluation.json"
        write_whole(path, json_text(report, indent=1) + "\n")
        console.print(f"written to {path}", soft_wrap=True)
    return scores


def check_same_classes(checkpoint: Checkpoint, taxonomy: Taxonomy) -> None:
    """Raise UserError if a checkpoint's classes are not those of this run."""
    if checkpoint.taxonomy.class_names != taxonomy.class_names:
        raise UserError(
            f"{checkpoint.path}: trained with the classes of '{checkpoint.taxonomy.name}', but "
            f"this run has those of '{taxonomy.name}'; use datasets of the same classes"
        )


def load_student_(model: SegmentationModel, weights: str, taxonomy: Taxonomy) -> None:
    """Load the student of a checkpoint or run folder, strictly."""
    checkpoint = load_checkpoint(resolve_checkpoint(Path(weights)))
    check_same_classes(checkpoint, taxonomy)
    prefix = "student.model."
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.meta_arch.items()
        if name.startswith(prefix)
    }
    load_weights_(model, state, checkpoint.path)


def evaluate_all(
    cfg: CfgNode,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    device: torch.device,
    progress: Progress,
) -> list[Scores]:
    """Score a model on every dataset of EVALUATION.DATASETS."""
    bound = tuple(cfg.EVALUATION.IMAGE_SIZE) or None
    predictor = TorchPredictor(model, taxonomy, bound, device)
    return [
        evaluate(predictor, open_dataset(name), taxonomy, progress)
        for name in cfg.EVALUATION.DATASETS
    ]


def show_scores(console: Console, scores: list[Scores]) -> None:
    """Print a table for each dataset."""
    for item in scores:
        console.print(f"{item.dataset}: {item.num_images} images", highlight=False)
        table = Table()
        table.add_column("class")
        table.add_column("IoU %", justify="right")
        for name, iou in item.iou.items():
            table.add_row(name, "not there" if iou != iou else f"{100 * iou:.1f}")
        table.add_section()
        table.add_row("mIoU", f"{100 * item.mean_iou:.1f}")
        for name, iou in item.subset_iou.items():
            table.add_row(name, f"{100 * iou:.1f}")
        table.add_row("pixel accuracy", f"{100 * item.accuracy:.1f}")
        console.print(table)
