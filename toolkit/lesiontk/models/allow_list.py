"""The classes and functions that a model file may name; anything else is refused before Keras.

Each listed entry only computes: it opens no file, imports no module and runs no code from the file.
A layer that reads a vocabulary from a path, or that wraps code, is not listed. Whether
`lesiontk import` can also rebuild a layer is defined in `imported_layers`.
"""

from __future__ import annotations

from collections.abc import Mapping

MODELS = ("Functional", "Sequential", "Model")

LAYERS = frozenset({
    "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization",
    "Normalization", "Rescaling", "Resizing", "CenterCrop",
    "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax",
    "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D",
    "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Flatten", "Reshape", "Permute",
    "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "Identity",
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast",
    "RandomBrightness",
    "Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate", "Dot",
})  # fmt: skip
"""Classes of ``keras.layers``."""

ACTIVATION_LAYERS = frozenset({
    "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax", "Activation",
})  # fmt: skip
"""Layers that may be the activation of another layer."""

ACTIVATIONS = frozenset({
    "linear", "relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "tanh", "softmax",
    "log_softmax", "elu", "selu", "gelu", "swish", "silu", "hard_swish", "hard_silu", "softplus",
    "softsign", "exponential", "mish",
})  # fmt: skip
"""Functions of ``keras.activations``, by name."""

INITIALIZERS = frozenset({
    "Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal",
    "VarianceScaling", "Orthogonal", "Identity", "GlorotUniform", "GlorotNormal", "HeUniform",
    "HeNormal", "LecunUniform", "LecunNormal",
})  # fmt: skip
REGULARIZERS = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})

FUNCTIONS = frozenset({
    "cast", "identity", "reshape", "transpose", "concat", "reverse", "squeeze", "expand_dims",
    "clip_by_value", "stack", "unstack", "stop_gradient", "convert_to_tensor",
    "math.add", "math.subtract", "math.multiply", "math.divide", "math.truediv", "math.negative",
    "math.maximum", "math.minimum", "math.abs", "math.square", "math.sqrt", "math.rsqrt",
    "math.pow", "math.reduce_mean", "math.reduce_max", "math.reduce_sum", "math.sigmoid",
    "math.tanh", "math.softplus",
    "nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.selu", "nn.gelu", "nn.silu", "nn.swish",
    "nn.sigmoid", "nn.softmax", "nn.tanh", "nn.softplus", "nn.softsign", "nn.bias_add",
    "__operators__.add", "__operators__.radd", "__operators__.sub", "__operators__.rsub",
    "__operators__.mul", "__operators__.rmul", "__operators__.truediv", "__operators__.rtruediv",
    "__operators__.neg", "__operators__.getitem",
})  # fmt: skip
"""TensorFlow functions that Keras 2 keeps as a ``TFOpLambda`` or ``SlicingOpLambda``.

None expands its input (``tile``, ``pad``, ``image.resize``).
"""

OPERATIONS: Mapping[str, frozenset[str]] = {
    "keras.src.ops.core": frozenset({"Cast", "StopGradient", "Unstack"}),
    "keras.src.ops.nn": frozenset({
        "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Gelu", "Silu", "Sigmoid", "HardSigmoid",
        "HardSilu", "Softmax", "Softplus", "Softsign",
    }),
    "keras.src.ops.numpy": frozenset({
        "Absolute", "Add", "Clip", "Concatenate", "Divide", "ExpandDims", "Flip", "GetItem", "Max",
        "Maximum", "Mean", "Minimum", "Multiply", "Negative", "Power", "Reshape", "Sqrt", "Square",
        "Squeeze", "Stack", "Subtract", "Sum", "Tanh", "Transpose", "TrueDivide",
    }),
}  # fmt: skip
"""Module -> operations of Keras 3 that occur among the layers of a functional model."""

ADVICE: Mapping[str, str] = {
    "Lambda": "it contains code, which is not run; replace it with Keras layers, such as "
    "Rescaling for "
    "the pixels, with operations (x / 255.0), or remove it and specify --pixels",
    "PruneLowMagnitude": "save tfmot.sparsity.keras.strip_pruning(model) instead",
    "ClusterWeights": "save tfmot.clustering.keras.strip_clustering(model) instead",
    "QuantizeLayer": "save the float model from before quantize_model; lesiontk quantizes it",
    "QuantizeWrapper": "save the float model from before quantize_model; lesiontk quantizes it",
    "QuantizeWrapperV2": "save the float model from before quantize_model; lesiontk quantizes it",
    "QuantizeAnnotate": "save the float model without annotations; lesiontk quantizes it",
    "CustomScaleLayer": "InceptionResNetV2 contains its own code; expected a network of Keras' "
    "standard layers, such as ResNet, DenseNet or EfficientNet",
    "LayerScale": "ConvNeXt contains its own code; expected a network of Keras' standard layers, "
    "such as ResNet, DenseNet or EfficientNet",
}
"""Unsupported class -> the remedy for a model that contains it."""
