"""The one visible list of what is registered: importing this module fills the registries."""

from __future__ import annotations

import t2sda.data.loader
import t2sda.data.translation.fda
import t2sda.data.translation.files
import t2sda.data.translation.photometric
import t2sda.engine.best_checkpoint
import t2sda.engine.checkpoint
import t2sda.engine.device
import t2sda.engine.ema
import t2sda.engine.hooks
import t2sda.engine.lookahead
import t2sda.engine.metrics
import t2sda.engine.optim
import t2sda.engine.precision
import t2sda.engine.reweighting
import t2sda.engine.trainer
import t2sda.engine.writers
import t2sda.evaluation.evaluator
import t2sda.meta_arch.adversarial
import t2sda.meta_arch.entropy
import t2sda.meta_arch.labelled_target
import t2sda.meta_arch.masked
import t2sda.meta_arch.rules
import t2sda.meta_arch.self_training
import t2sda.meta_arch.sepico
import t2sda.meta_arch.source_only
import t2sda.meta_arch.t2sda
import t2sda.meta_arch.target_statistics
import t2sda.modeling.backbones.mit
import t2sda.modeling.backbones.resnet_caffe
import t2sda.modeling.backbones.resnet_v1c
import t2sda.modeling.backbones.timm_cnn
import t2sda.modeling.backbones.timm_vit
import t2sda.modeling.backbones.timm_weights
import t2sda.modeling.corner_aligned
import t2sda.modeling.heads.daformer
import t2sda.modeling.heads.deeplabv2
import t2sda.modeling.heads.light
import t2sda.modeling.heads.segformer
import t2sda.modeling.heads.tokens
import t2sda.modeling.hrda
import t2sda.modeling.projector
import t2sda.modeling.segmentor  # noqa: F401
from t2sda.data.shipped import register_shipped

register_shipped()
