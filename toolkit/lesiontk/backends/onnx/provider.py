"""Which execution provider ONNX Runtime runs a session with.

`get_available_providers` lists what the wheel was built with; a provider that fails to load falls
back to the CPU without an error, so only the session itself shows it.
"""

from __future__ import annotations

from typing import Any

from lesiontk.backends.execution import Execution
from lesiontk.system.frameworks import import_onnxruntime

CPU = "CPUExecutionProvider"


def is_listed(provider: str) -> bool:
    """Return whether this onnxruntime was built with a provider; others cause warnings."""
    return provider in import_onnxruntime().get_available_providers()


def describe_provider(session: Any, requested: str) -> Execution:
    """Return the provider that a session runs with: the first in its list."""
    used = str(session.get_providers()[0])
    if used == requested:
        return Execution("provider", requested, used)
    listed = is_listed(requested)
    why = "onnxruntime could not load it" if listed else "not in this build of onnxruntime"
    return Execution("provider", requested, used, why)


def try_providers() -> tuple[Execution, ...]:
    """Return, for each provider that onnxruntime lists, whether a graph of one node runs with it.

    Azure's provider is left out: it sends tensors to a server.
    """
    from onnx import TensorProto, helper

    onnxruntime = import_onnxruntime()
    graph_io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Abs", ["x"], ["y"])
    graph = helper.make_graph([node], "probe", graph_io[:1], graph_io[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    found = []
    for name in onnxruntime.get_available_providers():
        if name == "AzureExecutionProvider":
            continue
        providers = list(dict.fromkeys((name, CPU)))
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=providers)
        found.append(describe_provider(session, name))
    return tuple(found)
