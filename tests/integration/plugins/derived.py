"""Components derived from shipped ones, under other names and with nothing changed."""

from t2sda.data.translation.fda import FdaTranslator
from t2sda.engine.ema import EmaTeacher
from t2sda.engine.reweighting import DynamicReweighting
from t2sda.meta_arch.self_training import MixedPass
from t2sda.meta_arch.source_only import SourcePass
from t2sda.meta_arch.t2sda import T2SDA, PullPass
from t2sda.modeling.backbones.timm_cnn import TimmCNN
from t2sda.modeling.heads.light import LightHead
from t2sda.registry import BACKBONES, HEADS, HOOKS, META_ARCHS, PASSES, TRANSLATORS


@BACKBONES.register()
class MyNetwork(TimmCNN):
    pass


@HEADS.register()
class MyHead(LightHead):
    pass


@TRANSLATORS.register("MyStyle")
class MyStyle(FdaTranslator):
    pass


@HOOKS.register()
class MyTeacher(EmaTeacher):
    pass


@HOOKS.register()
class MyWeights(DynamicReweighting):
    pass


@PASSES.register("my_source")
class MySource(SourcePass):
    pass


@PASSES.register("my_mixed")
class MyMixed(MixedPass):
    pass


@PASSES.register("my_pull")
class MyPull(PullPass):
    pass


@META_ARCHS.register()
class MyMethod(T2SDA):
    default_passes = ("my_source", "my_mixed", "my_pull")
