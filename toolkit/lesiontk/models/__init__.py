"""Architectures: one file each, registered here."""

from __future__ import annotations

from lesiontk.models.architecture import Architecture
from lesiontk.registry import Registry

ARCHITECTURES: Registry[Architecture] = Registry("architecture")
ARCHITECTURES.register("cnn", "lesiontk.models.cnn:CNN")
ARCHITECTURES.register("inceptionv2", "lesiontk.models.inceptionv2:INCEPTIONV2")
ARCHITECTURES.register("resnet152v2", "lesiontk.models.resnet152v2:RESNET152V2")
ARCHITECTURES.register("vgg16", "lesiontk.models.vgg16:VGG16")
ARCHITECTURES.register("efficientnet_lite0", "lesiontk.models.efficientnet_lite:EFFICIENTNET_LITE0")
ARCHITECTURES.register("efficientnet_lite1", "lesiontk.models.efficientnet_lite:EFFICIENTNET_LITE1")
ARCHITECTURES.register("efficientnet_lite2", "lesiontk.models.efficientnet_lite:EFFICIENTNET_LITE2")
