"""A training run: composed of a configuration, or of objects of one's own, then run."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode

import t2sda
from t2sda.config import dump_config
from t2sda.data.catalog import open_dataset
from t2sda.data.domains import DomainPairs
from t2sda.data.loader import DomainLoader
from t2sda.data.samplers import MicroBatchPositions
from t2sda.distributed import (
    barrier,
    broadcast_from_main_,
    check_shared_folder,
    is_main,
    rank,
    world_size,
)
from t2sda.engine.best_checkpoint import BestCheckpoint, best_path
from t2sda.engine.checkpoint import (
    Checkpoint,
    CheckpointWriter,
    check_hook_tensors,
    check_iteration,
    checkpoint_path,
    load_checkpoint,
)
from t2sda.engine.device import choose_device, lay_out_, use_deterministic_algorithms
from t2sda.engine.evaluation_hook import EvaluationHook
from t2sda.engine.hooks import Hook, RunObjects, build_hooks, named_hooks
from t2sda.engine.lookahead import steps_per_iteration
from t2sda.engine.metrics import (
    JsonLinesWriter,
    MetricsHook,
    MetricWriter,
    ProgressHook,
    standard_console,
)
from t2sda.engine.optim import build_owners
from t2sda.engine.precision import Precision
from t2sda.engine.progress import ConsoleProgress
from t2sda.engine.pseudo_label_metrics import PseudoLabelMetrics
from t2sda.engine.trainer import Trainer, TrainerSettings
from t2sda.engine.training_images import TrainingImages
from t2sda.engine.writers import build_writers, check_writers, image_writers
from t2sda.evaluation.entries import FILE_NAME, Scores, add_entries, check_can_add
from t2sda.evaluation.evaluator import check_classes
from t2sda.evaluation.model_file import ModelFile
from t2sda.files import atomic_write, make_writable_dir, only_writer
from t2sda.logs import log_to_file
from t2sda.meta_arch.base import build_meta_arch, reads_target_labels
from t2sda.modeling.normalization import share_statistics
from t2sda.modeling.segmentor import SegmentationModel
from t2sda.runtime.checkpoints import TorchPredictor
from t2sda.signals import stop_on_signals
from t2sda.training.folder import CONFIG_NAME
from t2sda.training.plan import plan_text, summary_text
from t2sda.training.record import RunRecord
from t2sda.training.resuming import (
    check_folder,
    check_same_classes,
    restore_,
    warn_of_changes,
)
from t2sda.training.scoring import evaluate_all, student_predictor
from t2sda.training.starting import check_frozen_weights, start_from_

logger = logging.getLogger(__name__)

EVALUATION = "evaluation/"
"""What names of scores begin with among the metrics."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes:
        output_dir: its folder.
        iteration: steps done.
        scores: of the last evaluation; empty if there was none.
        stopped_by: the signal that ended it early; None: it ran to the end.
        predictor: of the student.
    """

    output_dir: Path
    iteration: int
    scores: list[Scores]
    stopped_by: signal.Signals | None
    predictor: TorchPredictor


def run_training(
    cfg: CfgNode,
    device: torch.device | None = None,
    *,
    resume: bool = False,
    weights: str | None = None,
    model: SegmentationModel | None = None,
    hooks: Sequence[Hook] = (),
) -> TrainingResult:
    """Run a `TrainingRun`, which has the same arguments, and log it to its folder's log.txt."""
    folder = Path(cfg.OUTPUT_DIR)
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(only_writer(folder, "--output-dir"))
            check_folder(folder, resume)  # before anything is written to it
            stack.enter_context(log_to_file(folder))
        check_shared_folder(folder)
        run = TrainingRun(cfg, device, resume=resume, weights=weights, model=model, hooks=hooks)
        return run.run()


class TrainingRun:
    """One run in one output folder.

    Args:
        cfg: resolved and frozen.
        device: of this rank; by default what DEVICE says.
        resume: go on from the folder's newest checkpoint, if there is one.
        weights: checkpoint or run folder whose student to start from; one of other classes gives
            all but what depends on them.
        model: to train in place of the one that MODEL describes, in a script or a notebook;
            `load_model` reads its checkpoints only if MODEL describes it as well.
        hooks: further ones, beside those that HOOKS.NAMES builds.
    Raises:
        UserError: if the folder holds a run already and `resume` is not set.
    """

    def __init__(
        self,
        cfg: CfgNode,
        device: torch.device | None = None,
        *,
        resume: bool = False,
        weights: str | None = None,
        model: SegmentationModel | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.cfg = cfg
        self.device = device = device or choose_device(cfg.DEVICE)
        console = standard_console(quiet=not is_main())
        self.output_dir = Path(cfg.OUTPUT_DIR)
        self.first_iteration = 0
        self.last_scores: list[Scores] = []
        self.last_scored = -1
        self.provenance: Mapping[str, str] = {}
        self.progress = ProgressHook(cfg.LOGGING.PERIOD, cfg.SOLVER.MAX_ITER, console)
        check_writers(cfg)  # now, not after datasets were opened
        found = check_folder(self.output_dir, resume)
        checkpoint = load_checkpoint(found) if found is not None else None
        if checkpoint is not None:
            check_iteration(checkpoint, cfg.SOLVER.MAX_ITER)
        elif weights is None and model is None:
            check_frozen_weights(cfg)
        if cfg.SOLVER.DETERMINISTIC:
            use_deterministic_algorithms()
        torch.manual_seed(cfg.SEED)
        self.pairs = DomainPairs.from_config(
            cfg, ConsoleProgress(console), target_labels=reads_target_labels(cfg)
        )
        self.data = self.pairs.fingerprint()
        self.taxonomy = self.pairs.source.taxonomy
        for name in cfg.EVALUATION.DATASETS:  # now, not after hours of training
            check_classes(open_dataset(name), self.taxonomy)
        self.meta_arch = build_meta_arch(cfg, self.taxonomy, model).to(device)
        if world_size() > 1:
            share_statistics(self.meta_arch)
        lay_out_(self.meta_arch.student, cfg)
        self.owners = build_owners(cfg, self.meta_arch)
        self.hooks = build_hooks(
            cfg, RunObjects(self.meta_arch, self.output_dir, self.taxonomy.class_names)
        )
        self.hooks |= named_hooks(hooks, self.hooks)
        if cfg.CHECKPOINT.BEST:
            best = BestCheckpoint(cfg.CHECKPOINT.BEST, cfg.CHECKPOINT.PATIENCE, self._save_best)
            self.hooks[type(best).__name__] = best
        check_hook_tensors(self.hooks)
        self.precision = Precision(cfg.SOLVER.PRECISION, device)
        if checkpoint is not None:
            self._restore(checkpoint)
        elif weights is not None:
            student = self.meta_arch.student.model
            self.provenance = start_from_(student, weights, self.taxonomy, cfg)
        broadcast_from_main_(self.meta_arch)

    def run(self) -> TrainingResult:
        """Train to the end or to a signal."""
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
            check_can_add(self.output_dir / FILE_NAME, "--output-dir")
            atomic_write(self.output_dir / CONFIG_NAME, dump_config(self.cfg))
            atomic_write(self.output_dir / "plan.txt", plan_text(self.cfg, world_size()) + "\n")
        self._describe()
        batches = self._batches()
        try:
            with ExitStack() as stack:
                received: list[int] = []
                if threading.current_thread() is threading.main_thread():  # others get no signals
                    received = stack.enter_context(
                        stop_on_signals(trainer.request_stop, logger.info)
                    )
                next_iteration = trainer.run(batches, self.first_iteration)
        except (RuntimeError, EOFError, ConnectionError) as error:
            raise batches.explained(error) from error.__cause__
        finally:
            batches.close()
            self.progress.stop()
            batches.report_skipped()
        barrier()
        stopped_by = None
        if trainer.is_ended:
            logger.info("ended after iteration %d, as a hook asked for", next_iteration)
            self._say_best()
        elif next_iteration < self.cfg.SOLVER.MAX_ITER:
            # Of several ranks, one alone may have got the signal.
            stopped_by = signal.Signals(received[0] if received else signal.SIGTERM)
            logger.info("stopped after iteration %d; go on with --resume", next_iteration)
        else:
            logger.info("finished; the run is in %s", self.output_dir)
            self._say_best()
        if is_main() and self.last_scored == next_iteration:
            self._keep_scores()
        return TrainingResult(
            self.output_dir,
            next_iteration,
            self.last_scores,
            stopped_by,
            self._predictor(next_iteration),
        )

    def _keep_scores(self) -> None:
        """What the last evaluation found, as what the last checkpoint scores."""
        file = ModelFile.of(checkpoint_path(self.output_dir, self.last_scored))
        predictor = self._predictor(self.last_scored)
        entries = [file.entry(item, predictor, self.output_dir) for item in self.last_scores]
        add_entries(self.output_dir / FILE_NAME, entries)

    def _predictor(self, iteration: int) -> TorchPredictor:
        student = self.meta_arch.student.model
        return student_predictor(self.cfg, student, self.taxonomy, self.device, iteration)

    def _restore(self, checkpoint: Checkpoint) -> None:
        check_same_classes(checkpoint, self.taxonomy)
        steps = checkpoint.iteration * steps_per_iteration(self.cfg)
        restore_(checkpoint, steps, self.meta_arch, self.owners, self.hooks, self.precision)
        self.first_iteration = checkpoint.iteration
        self.provenance = checkpoint.provenance
        warn_of_changes(checkpoint, self.cfg, self.data)

    def _all_hooks(self) -> list[Hook]:
        solver, period = self.cfg.SOLVER, self.cfg.LOGGING.PERIOD
        metrics = MetricsHook(self._writers(), period, solver.MAX_ITER)
        pseudo_labels = PseudoLabelMetrics.for_run(self.cfg, self.taxonomy.class_names)
        hooks = [*self.hooks.values(), *pseudo_labels, metrics]
        if image_writers(self.cfg):
            hooks.append(self._training_images(metrics))
        hooks.append(self._evaluation_hook(metrics))
        if is_main():
            record = RunRecord(self.output_dir, self.device, self._is_ended)
            hooks += [self.progress, self._checkpoint_writer(), record]
        return hooks

    def _is_ended(self) -> bool:
        return any(hook.should_stop() for hook in self.hooks.values())

    def _writers(self) -> list[MetricWriter]:
        if not is_main():
            return []
        lines = JsonLinesWriter(self.output_dir / "metrics.jsonl")
        return [lines, *build_writers(self.cfg, self.output_dir)]

    def _training_images(self, metrics: MetricsHook) -> Hook:
        return TrainingImages(
            self.meta_arch,
            self.taxonomy,
            self.device,
            metrics.write_images if is_main() else None,
            period=self.cfg.EVALUATION.PERIOD,
            max_iter=self.cfg.SOLVER.MAX_ITER,
        )

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

    def _save_best(self, iteration: int) -> None:
        if is_main():
            self._checkpoint_writer().save_as(best_path(self.output_dir), iteration)

    def _say_best(self) -> None:
        best = self.hooks.get(BestCheckpoint.__name__)
        if isinstance(best, BestCheckpoint) and best.best_iteration:
            logger.info(
                "best %s: %.4f after iteration %d, in %s",
                *(best.score, best.best, best.best_iteration, best_path(self.output_dir)),
            )

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds of the live objects."""
        hooks = {name: hook.state_dict() for name, hook in self.hooks.items()}
        student, *others = self.owners
        return {
            "meta_arch": self.meta_arch.state_dict(),
            "optimizer": student.state_dict(),
            "pass_optimizers": {owner.name: owner.state_dict() for owner in others},
            "hooks": {name: state for name, state in hooks.items() if state},
            "scaler": self.precision.scaler.state_dict(),
            "data": self.data,
            "provenance": self.provenance,
        }

    def _evaluation_hook(self, metrics: MetricsHook) -> EvaluationHook:
        def report(iteration: int, scores: list[Scores]) -> None:
            self.last_scores, self.last_scored = scores, iteration
            found: dict[str, float] = {}
            for item in scores:
                metrics.write_evaluation(iteration, item.as_metrics())
                found |= {
                    name.removeprefix(EVALUATION): value
                    for name, value in item.as_metrics().items()
                }
                logger.info(
                    "iteration %d: %s mIoU %.1f %%",
                    iteration,
                    item.dataset,
                    100 * item.reported.mean_iou,
                )

            for hook in self.hooks.values():
                hook.after_evaluation(iteration, found)

        def scores_of(iteration: int) -> list[Scores]:
            return evaluate_all(self.cfg, self._predictor(iteration), self.progress.track)

        return EvaluationHook(
            scores_of,
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
        count = sum(p.numel() for p in self.meta_arch.student.parameters())
        trained = sum(p.numel() for p in self.owners[0].parameters)
        of_them = f", {trained / 1e6:.1f} M of them trained" if trained < count else ""
        lines = [
            f"t2sda {t2sda.__version__}, torch {torch.__version__}, {self.device}, "
            f"{world_size()} process(es)",
            *summary_text(self.cfg, self.pairs, world_size()),
            f"{count / 1e6:.1f} M student parameters{of_them}, {self.cfg.SOLVER.PRECISION}; "
            f"iterations {self.first_iteration} to {self.cfg.SOLVER.MAX_ITER}",
            *([f"plugins: {', '.join(self.cfg.PLUGINS)}"] if self.cfg.PLUGINS else []),
            f"all that is decided: {self.output_dir / 'plan.txt'}, or `t2sda show-config --plan`",
        ]
        for line in lines:
            logger.info(line)
