"""Check of the tensor sizes of an ONNX graph before anything is allocated."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from lesiontk.backends.tensor_limits import check_tensor

SHAPE_LIKE = 64
"""Maximum size of a constant that may be a shape and is kept for shape inference."""


def check_tensor_sizes(model: ModelProto, path: Path) -> None:
    """Raise `DataError` for a tensor that is too large; `model` loses its weights.

    Sizes are inferred for one image. Data-dependent sizes are unknown.
    """
    for tensor in model.graph.initializer:
        check_tensor(path, tensor.name, tensor.dims)
    for value in model.graph.input:
        for size in value.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                size.dim_value = 1
    _drop_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 - ONNX Runtime reports the fault of the graph better
        return
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        check_tensor(path, value.name, [d.dim_value for d in value.type.tensor_type.shape.dim])


def _drop_weights(model: ModelProto) -> None:
    """Empty the constants that are not shapes, because the inference would copy them."""
    for tensor in model.graph.initializer:
        may_be_shape = len(tensor.dims) == 1 and tensor.dims[0] <= SHAPE_LIKE
        if not may_be_shape and tensor.ByteSize() > 8 * SHAPE_LIKE:
            tensor.CopyFrom(
                TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            )
