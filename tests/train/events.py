"""TensorBoard's scalars, read with TensorFlow: the package tensorboard need not be installed."""

from __future__ import annotations

from pathlib import Path

from lesiontk.system.frameworks import import_tensorflow


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return tag -> step -> value of the event files in a folder."""
    tf = import_tensorflow()
    files = sorted(map(str, folder.glob("events.out.tfevents.*")))
    read: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            read.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return read
