"""A model's config, read with bounds and reduced to what `allow_list` permits.

Keras instantiates any class and function in a config, including TensorFlow functions that write
files. Therefore Keras never gets a config as read. `permit_model` copies the permitted parts into a
new config, with known modules, and refuses the rest by the layer's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lesiontk.errors import DataError, show_value
from lesiontk.files.strict_json import parse_json
from lesiontk.models.allow_list import (
    ACTIVATION_LAYERS,
    ACTIVATIONS,
    ADVICE,
    CONSTRAINTS,
    FUNCTIONS,
    INITIALIZERS,
    LAYERS,
    MODELS,
    OPERATIONS,
    REGULARIZERS,
)
from lesiontk.models.imported_layers import ForeignLayer, check_layer
from lesiontk.models.imported_operations import OP_LAYERS, check_operation

EXPECTED = "expected a .keras or .h5 file, or a folder with a SavedModel"
MAX_BYTES = 32 * 2**20
"""Maximum size of a config; that of ResNet152V2 has 0.6 MB."""
MAX_DEPTH = 256
"""Maximum nesting of lists and dictionaries; a nested model takes four levels."""
MAX_CALLS = 20_000
"""Maximum number of layer calls; those of a nested model count at each of its calls."""

FLOATS = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
NUMBERS = (*FLOATS[:4], "bool", "uint8", "int8", "uint16", "int16", "int32", "int64")
TRAINING_ONLY = {
    "_initializer": ("keras.initializers", INITIALIZERS),
    "_regularizer": ("keras.regularizers", REGULARIZERS),
    "_constraint": ("keras.constraints", CONSTRAINTS),
}
"""End of a key -> module and classes; other keys are dropped, because inference needs none."""
TUPLES = ("__tuple__", "TensorShape")
NESTED = {"__numpy__", "__tensor__", "__keras_tensor__", "__slice__", "__ellipsis__"}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The version of Keras that wrote a file, and the permitted description of the model.

    `modules` is True if classes are named with their modules, as in ``.keras`` files.
    """

    keras_version: str
    config: Mapping[str, Any]
    modules: bool

    @property
    def is_keras2(self) -> bool:
        """Whether Keras 2 wrote it; each Keras reads only its own files."""
        return self.keras_version.startswith(("1.", "2."))


def parse_description(text: bytes | str, name: str) -> Any:
    """Return the mapping of a JSON text; `DataError` if it is none, too long or too deep."""
    check_size(len(text), name)
    value = parse_json(text, f"the description of the model {name}")
    waiting, depth = [value] if isinstance(value, dict | list) else [], 0
    while waiting:
        depth += 1
        if depth > MAX_DEPTH:
            raise DataError(
                f"{name} contains a description of more than {MAX_DEPTH} levels; {EXPECTED}."
            )
        waiting = [
            inner
            for outer in waiting
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if not isinstance(value, dict):
        raise DataError(f"{name} holds {show_value(value)} for a description; {EXPECTED}.")
    return value


def check_size(size: int, name: str) -> None:
    """Raise `DataError` for a description of more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise DataError(
            f"{name} describes its layers in {size:,} bytes; expected at most {MAX_BYTES:,}."
        )


def permit_model(value: Any, keras_version: str, name: str, *, modules: bool) -> ModelFile:
    """Return the permitted part of a description. Raises `DataError` with the name of the rest."""
    permit = _Permit(modules, keras2=keras_version.startswith(("1.", "2.")))
    try:
        kind = str(value["class_name"])
        if kind not in MODELS:
            named = value.get("name") or _config_of(value).get("name") or name
            raise refuse_model(kind, str(named))
        config = permit.layer(value)
        calls = _count_calls(config)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{name} has no known description of its layers; {EXPECTED}.") from error
    if calls > MAX_CALLS:
        raise DataError(f"{name} calls layers {calls:,} times; expected at most {MAX_CALLS:,}.")
    return ModelFile(keras_version, config, modules)


def refuse_model(kind: str, name: str) -> DataError:
    """Return the error for a model that is code, not a graph of layers."""
    return DataError(
        f"model {name!r} ({kind}) is not a functional model: its code is not in the "
        "file; expected a functional or sequential model."
    )


def check_layers(file: ModelFile) -> None:
    """Raise `DataError` with the name of the first layer that cannot be imported."""
    for entry in _list_layers(file.config):
        layer = _describe(entry, entry["config"])
        if layer.kind in OP_LAYERS:
            check_operation(replace(layer, kind=str(layer.config["function"])))
        elif entry.get("module") in OPERATIONS:
            check_operation(layer)
        else:
            check_layer(layer)


def _list_layers(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the layers and operations of a model and its nested models, without inputs."""
    for entry in config["config"]["layers"]:
        if entry["class_name"] in MODELS:
            yield from _list_layers(entry)
        elif entry["class_name"] != "InputLayer":
            yield entry


def _count_calls(entry: Mapping[str, Any]) -> int:
    """Return the number of layer calls, including those of nested models."""
    if entry["class_name"] not in MODELS:
        return 1
    return sum(
        max(1, len(inner.get("inbound_nodes", ()))) * _count_calls(inner)
        for inner in entry["config"]["layers"]
    )


class _Layers(list[dict[str, Any]]):
    """The layers of a model, with a limit on the number of iterations.

    Keras 2 iterates over them until all calls are made, at least one each time; a call whose input
    is missing would make it loop forever.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._passes = getattr(self, "_passes", 0) + 1
        entries = list(super().__iter__())
        if self._passes > 10 + sum(len(entry.get("inbound_nodes") or ()) for entry in entries):
            raise DataError(
                "the description has a layer without an input; expected a connected graph."
            )
        return iter(entries)


class _Permit:
    """A copier of descriptions; each method returns the permitted copy of one part."""

    def __init__(self, modules: bool, *, keras2: bool) -> None:
        self._modules = modules
        self._keras2 = keras2

    def layer(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return a layer or a model, with its place in the graph."""
        kind, config = str(entry["class_name"]), _config_of(entry)
        layer = _describe(entry, config)
        module = self._find_module(layer, entry)
        if kind in MODELS:
            made = self._model(kind, config)
        else:
            made = {key: self._argument(layer, key, value) for key, value in config.items()}
        permitted: dict[str, Any] = {"class_name": kind, "config": made}
        if self._modules:
            permitted |= {"module": module, "registered_name": None}
        if type(entry.get("shared_object_id")) is int:
            permitted["shared_object_id"] = entry["shared_object_id"]
        for key in ("name", "inbound_nodes", "build_config"):
            if key in entry:
                permitted[key] = self._plain(layer, entry[key])
        if not all(_reads_a_layer(node) for node in permitted.get("inbound_nodes", ())):
            raise layer.refuse("its arguments are constants; expected the output of another layer")
        return permitted

    def _find_module(self, layer: ForeignLayer, entry: Mapping[str, Any]) -> str:
        """Return the class's module in Keras. Raises `DataError` for a class that is not listed."""
        module = str(entry.get("module", "keras.layers"))
        name = entry.get("registered_name")
        if module in OPERATIONS and not self._keras2:
            if layer.kind in OPERATIONS[module]:
                return module
            raise layer.refuse(f"known operations are {', '.join(sorted(OPERATIONS[module]))}")
        if module.split(".")[0] not in ("keras", "tf_keras") or name not in (None, layer.kind):
            raise layer.refuse(
                _advise(layer.kind) or "it is a custom class; expected Keras' layers"
            )
        if layer.kind in OP_LAYERS and self._keras2:
            function = layer.config.get("function")
            if function in FUNCTIONS:
                return "tf_keras.src.layers.core.tf_op_layer"
            raise layer.refuse(
                f"it calls {str(function)[:60]!r}; known are {', '.join(sorted(FUNCTIONS))}"
            )
        if layer.kind in MODELS:
            return self._module_of_model(layer.kind)
        if layer.kind in LAYERS or layer.kind == "InputLayer":
            return "keras.layers"
        if any(layer.kind in known for known in OPERATIONS.values()):
            raise layer.refuse(
                "an .h5 file does not contain operations of Keras 3; save it as .keras"
            )
        raise layer.refuse(
            _advise(layer.kind)
            or "expected one of the layers in lesiontk.models.allow_list; train a model of those"
        )

    def _module_of_model(self, kind: str) -> str:
        if kind != "Functional":
            return "keras"
        return "tf_keras.src.engine.functional" if self._keras2 else "keras.src.models.functional"

    def _model(self, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
        frame = ForeignLayer(kind, str(config.get("name", "")), config, ())
        layers = config["layers"]
        if not isinstance(layers, list):
            raise TypeError("layers are not a list")
        kept = ("name", "trainable", "input_layers", "output_layers", "build_input_shape")
        plain = {key: self._plain(frame, config[key]) for key in kept if key in config}
        return {**plain, "layers": _Layers(self.layer(entry) for entry in layers)}

    def _argument(self, layer: ForeignLayer, key: str, value: Any) -> Any:
        if key == "dtype":
            return self._dtype(layer, value)
        if key.endswith("activation"):
            return self._activation(layer, value)
        for end, (module, known) in TRAINING_ONLY.items():
            if key.endswith(end):
                return self._training_only(layer, value, module, known)
        return self._plain(layer, value)

    def _dtype(self, layer: ForeignLayer, value: Any) -> str | None:
        """Return float32 for every float policy: mixed precision affects only training."""
        name = _config_of(value).get("name") if isinstance(value, dict) else value
        if name is None or name in FLOATS:
            return "float32"
        if layer.kind in ("InputLayer", "Cast", *OP_LAYERS) and name in NUMBERS:
            return "float32" if layer.kind == "InputLayer" else str(name)
        raise layer.refuse(f"its dtype is {str(name)[:60]!r}; expected one of {', '.join(FLOATS)}")

    def _activation(self, layer: ForeignLayer, value: Any) -> Any:
        name = value
        if isinstance(value, dict):
            if value.get("class_name") in ACTIVATION_LAYERS:
                return self.layer(value)
            name = value.get("config") if value.get("class_name") == "function" else None
            if value.get("module") not in ("builtins", "keras.activations", None):
                name = None
        if value is None or (isinstance(name, str) and name in ACTIVATIONS):
            return name
        received = repr(name[:60]) if isinstance(name, str) else "a layer or code"
        raise layer.refuse(
            f"its activation is {received}; known are {', '.join(sorted(ACTIVATIONS))}"
        )

    def _training_only(
        self, layer: ForeignLayer, value: Any, module: str, known: frozenset[str]
    ) -> Any:
        if not isinstance(value, dict) or value.get("class_name") not in known:
            return "zeros" if known is INITIALIZERS and value is not None else None
        made = {"class_name": value["class_name"], "config": self._plain(layer, _config_of(value))}
        return {**made, "module": module, "registered_name": None} if "module" in value else made

    def _plain(self, layer: ForeignLayer, value: Any) -> Any:
        """Return a value of numbers, text and Keras' few notations for them."""
        if isinstance(value, str | int | float) or value is None:
            return value
        if isinstance(value, list):
            return [self._plain(layer, item) for item in value]
        kind = value.get("class_name")
        if kind is None:
            return {str(key): self._plain(layer, item) for key, item in value.items()}
        if kind in TUPLES:
            return self._plain(layer, list(value["items"]))
        if kind == "__ellipsis__" and self._keras2 and not self._modules:
            return ...  # as Keras 2 reads it
        if kind in NESTED:
            config = _config_of(value) if "config" in value else {}
            if str(config.get("dtype", "float32")) not in NUMBERS:
                raise layer.refuse(f"it contains a value of {str(config['dtype'])[:60]!r}")
            return {"class_name": kind, "config": self._plain(layer, config)}
        raise layer.refuse(
            _advise(str(kind)) or f"it contains a {str(kind)[:60]}, expected numbers"
        )


def _reads_a_layer(node: Any) -> bool:
    """Return whether a call has a tensor argument, so that loading computes nothing.

    Keras 2 writes one as ``["layer", 0, 0]``, Keras 3 as a ``__keras_tensor__``.
    """
    if isinstance(node, dict):
        return node.get("class_name") == "__keras_tensor__" or any(
            _reads_a_layer(value) for value in node.values()
        )
    if not isinstance(node, list):
        return False
    named = len(node) >= 3 and isinstance(node[0], str) and type(node[1]) is type(node[2]) is int
    return (named and node[0] != "_CONSTANT_VALUE") or any(_reads_a_layer(part) for part in node)


def _advise(kind: str) -> str | None:
    """Return the remedy for a class; Keras 2 writes a registered one as ``Custom>Name``."""
    return ADVICE.get(kind.split(">")[-1])


def _config_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config; before Keras 2.2.3 that of a Sequential is the list of layers."""
    config = entry["config"]
    if entry["class_name"] == "Sequential" and isinstance(config, list):
        return {"name": str(entry.get("name", "sequential")), "layers": config}
    if not isinstance(config, dict):
        raise TypeError("a config is not a dictionary")
    return config


def _describe(entry: Mapping[str, Any], config: Mapping[str, Any]) -> ForeignLayer:
    name = entry.get("name") or config.get("name", "")
    return ForeignLayer(str(entry["class_name"])[:60], str(name)[:200], config, ())
