"""A network leaves the workspace, is trained in PyTorch with others, and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lesiontk.backends import open_engine
from lesiontk.backends.keras.backend import find_spec, load_model
from lesiontk.data.images import open_images
from lesiontk.errors import DataError, UsageError
from lesiontk.recipe import Recipe, dump_recipe, parse_recipe
from lesiontk.records import MAY_HAVE_SEEN_TEST, Artefact
from lesiontk.stages.teacher_predictions import make_teach
from lesiontk.store import Store
from lesiontk.workflow.compress import compress_model
from lesiontk.workflow.train import train_recipe
from tests.loose_modules import BENCHMARKS, load_benchmark

torch = pytest.importorskip("torch", reason="PyTorch is no dependency: pip install torch")
jobs, pack, training = (load_benchmark(f"gpu.{name}") for name in ("jobs", "pack", "train"))
SIZE = 40


def make_recipe(**train: Any) -> Recipe:
    """Return a recipe of synthetic images, with training pictures wider than the square."""
    data = {
        "source": "synthetic",
        "image_size": SIZE,
        "training_aspect": 1.25,
        "synthetic": {"lesions": 84, "image_size": 48, "seed": 3},
    }
    section = {"epochs": 1, "batch_size": 16, "augment": "none", **train}
    model = {"dropout": 0.1}
    return parse_recipe({"name": "tiny", "data": data, "model": model, "train": section})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("gpu") / "workspace", threads=1)


@pytest.fixture(scope="module")
def model(store: Store) -> Artefact:
    return train_recipe(store, make_recipe())


@pytest.fixture(scope="module")
def images(store: Store, model: Artefact) -> Artefact:
    return store.parent(model, "images")


def read_job(
    folder: Path, model: Artefact, images: Path, train: Mapping[str, Any], **job: Any
) -> Any:
    """Return the job of a list in `folder`, which trains the model of the workspace further."""
    document = {
        "recipe": yaml.safe_load(dump_recipe(make_recipe(**train))),
        "start": str(model.file("model.keras")),
        "images": str(images),
        "out": "out.keras",
        **job,
    }
    (folder / "jobs.yaml").write_text(yaml.safe_dump([document]))
    return jobs.read_jobs(folder / "jobs.yaml")[0]


def test_a_pack_holds_the_pictures_without_loss_where_they_are_small(
    images: Artefact, tmp_path: Path
) -> None:
    pack.pack_images(images.path, tmp_path / "pack")
    prepared, packed = (pack.read_images(f) for f in (images.path, tmp_path / "pack"))
    whole = open_images(images)
    assert packed.train.pixels.shape[1:] == (SIZE, 50, 3)
    np.testing.assert_array_equal(packed.train.pixels, whole.training_pixels)
    np.testing.assert_array_equal(
        packed.validation.pixels, whole.pixels[whole.indices("validation")]
    )
    for subset in ("train", "validation"):
        expected = [whole.labels[whole.targets[row]] for row in whole.indices(subset)]
        assert list(getattr(packed, subset).labels) == expected
        assert getattr(prepared, subset).labels == getattr(packed, subset).labels
    assert (packed.split_hash, packed.image_size) == (whole.split_hash, SIZE)


def test_larger_packs_have_parts_of_jpeg(images: Artefact, tmp_path: Path) -> None:
    files = pack.pack_images(images.path, tmp_path / "pack", part_bytes=50_000)
    assert len(files) > 3
    assert all(file.stat().st_size <= 50_000 for file in files[1:])
    prepared, packed = (pack.read_images(f) for f in (images.path, tmp_path / "pack"))
    off = np.abs(prepared.train.pixels.astype(int) - packed.train.pixels)
    assert 0 < off.mean() < 4


def test_a_damaged_part_is_named(images: Artefact, tmp_path: Path) -> None:
    *_, part = pack.pack_images(images.path, tmp_path / "pack")
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    with pytest.raises(DataError, match=r"part-000\.bin is missing or damaged; expected"):
        pack.read_images(tmp_path / "pack")
    with pytest.raises(DataError, match=r"expected a pack, or a folder images-"):
        pack.read_images(tmp_path)


EVERYTHING = {
    "epochs": 4,
    "head_epochs": 1,
    "grow": [32],
    "imbalance": ["sqrt_sampling", "logit_adjustment", "mixup", "cutmix"],
    "augment": "trivial_augment",
    "lowest_rate": 0.3,
    "ema": 0.9,
}


def test_a_trained_network_comes_back(
    store: Store, model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    teachers = [str(BENCHMARKS / "engines/cnn_7class/keras_float32.keras")]
    job = read_job(tmp_path, model, images.path, EVERYTHING)
    lines: list[str] = []
    scores = training.Trainer(job, report=lines.append).run()
    assert lines[0].startswith("before: balanced_accuracy ")
    assert lines[-1].startswith("after ")
    loaded = compress_model(store, model, "load_weights", {"file": str(job.out)})
    assert loaded.facts["change"]["trained_by"]["epochs"] == 4
    assert loaded.facts["change"]["trained_by"]["imbalance"] == EVERYTHING["imbalance"]
    before, after = (load_model(a.file("model.keras")) for a in (model, loaded))
    for old, new in zip(before.get_weights(), after.get_weights(), strict=True):
        assert np.abs(old - new).max() > 0
    whole = open_images(images)
    rows = whole.indices("validation")
    probabilities = after.predict(whole.pixels[rows].astype(np.float32), verbose=0)
    recalls = [
        (probabilities.argmax(1) == c)[whole.targets[rows] == c].mean()
        for c in np.unique(whole.targets[rows])
    ]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    job = read_job(tmp_path, model, images.path, {}, teachers=teachers)
    with pytest.raises(DataError, match=r"keras_float32\.keras is of the split .* expected that"):
        training.Trainer(job)


def test_training_lowers_the_loss(model: Artefact, images: Artefact, tmp_path: Path) -> None:
    """With the plain cross entropy, in which a later epoch is comparable with an earlier one."""
    job = read_job(tmp_path, model, images.path, {"imbalance": "none", "epochs": 8})
    trainer = training.Trainer(job, report=lambda _: None)
    trainer.run()
    losses = {}
    for file in (job.start, job.out):
        network = training.KerasNetwork(file).eval()
        with torch.no_grad():
            logits = network(trainer.validation.float())
        targets = trainer.truths.new_tensor(np.eye(7)[trainer.validation_targets])
        losses[file] = float(training.functional.cross_entropy(logits, targets))
    assert losses[job.out] < losses[job.start]


def test_the_head_is_trained_first(model: Artefact, images: Artefact, tmp_path: Path) -> None:
    job = read_job(tmp_path, model, images.path, {"head_epochs": 1, "epochs": 1})
    training.Trainer(job, report=lambda _: None).run()
    old, new = (load_model(file) for file in (job.start, job.out))
    for layer in old.layers:
        values = zip(layer.get_weights(), new.get_layer(layer.name).get_weights(), strict=True)
        changed = any(np.abs(a - b).max() > 0 for a, b in values)
        assert changed == (layer.name == "logits" or layer.name.endswith("_bn")), layer.name


def test_soft_targets_are_the_mean_of_the_teachers(
    model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    """Of every view, resized to what a teacher takes."""
    other = tmp_path / "other.keras"
    job = read_job(tmp_path, model, images.path, {}, out="other.keras")
    training.Trainer(job, report=lambda _: None).run()
    teachers = [str(job.start), str(other)]
    job = read_job(tmp_path, model, images.path, {"augment": "flips"}, teachers=teachers)
    trainer = training.Trainer(job, report=lambda _: None)
    trainer.chosen.copy_(torch.arange(16))
    views, _, soft = trainer.make_views(SIZE)
    pixels = views.round().permute(0, 2, 3, 1).numpy()
    said = np.mean([load_model(f).predict(pixels, verbose=0) for f in (job.start, other)], axis=0)
    powers = np.sqrt(said)
    np.testing.assert_allclose(soft, powers / powers.sum(1, keepdims=True), atol=1e-4)
    trainer.run()
    assert find_spec(job.out).extra["trained_by"]["teachers"] == ["tiny 40 px", "tiny 40 px"]


def test_features_and_views_of_a_teacher_are_those_of_lesiontk(
    model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    file = model.file("model.keras")
    rules = {"teachers": [str(file)], "losses": ["feature:0.5", "relational"], "teacher_views": 8}
    job = read_job(tmp_path, model, images.path, {"augment": "flips"}, **rules)
    trainer = training.Trainer(job, report=lambda _: None)
    trainer.chosen.copy_(torch.arange(16))
    views, _, taught = trainer.make_views(SIZE)
    pixels = views.round().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    with open_engine(file) as engine:
        engine.expose_features()
        teach = make_teach([engine], training.read_task(trainer.network.spec), 2.0, 8, engine)
        np.testing.assert_allclose(taught, teach(pixels), atol=1e-3)
    before = trainer.features.projection.weight.clone()
    trainer.run()
    assert (trainer.features.projection.weight - before).abs().max() > 0
    told = find_spec(job.out).extra["trained_by"]
    assert (told["losses"], told["teacher_views"]) == (rules["losses"], 8)
    names = [layer.name for layer in load_model(job.out).layers]
    assert names == [layer.name for layer in load_model(file).layers]


def test_sizes_that_the_network_does_not_take_are_refused(
    model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    for sizes in ([24], [40], [36, 32]):
        job = read_job(tmp_path, model, images.path, {"grow": sizes, "epochs": 3})
        with pytest.raises(DataError, match=r"train\.grow is .*; expected increasing sizes below"):
            training.Trainer(job)


def test_what_a_teacher_may_have_seen_the_student_may_have(
    model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    network = training.KerasNetwork(model.file("model.keras"))
    network.spec["extra"][MAY_HAVE_SEEN_TEST] = True
    network.write(model.file("model.keras"), tmp_path / "teacher.keras", {})
    job = read_job(tmp_path, model, images.path, {}, teachers=["teacher.keras"])
    training.Trainer(job, report=lambda _: None).run()
    assert find_spec(job.out).may_have_seen_test
    assert not find_spec(job.start).may_have_seen_test


def test_a_time_limit_that_is_too_short_is_an_error(
    model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    job = read_job(tmp_path, model, images.path, {})
    with pytest.raises(DataError, match=r"the end takes .* s; expected more --minutes"):
        training.Trainer(job, deadline=0.0, report=lambda _: None).run()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "a.keras"}, "job 1 of jobs.yaml is not valid: .*teachers"),
        ({"losses": ["featur"]}, "unknown feature loss 'featur'.*'feature'"),
        ({"losses": ["feature"]}, "losses compare features with a teacher's; expected teachers"),
        ({"start": "missing.keras"}, "job 1 names .*missing.keras, which does not exist"),
        ({"recipe": {"name": "x", "trian": {}}}, "trian"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused(
    changes: dict[str, Any], message: str, model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        read_job(tmp_path, model, images.path, {}, **changes)


def run_script(*arguments: str, hidden: Path | None = None) -> str:
    """Run the script in a process of its own and return what it prints.

    `hidden` is a folder for modules that hide TensorFlow and what a machine with a GPU may lack.
    """
    script = [sys.executable, str(BENCHMARKS / "train_on_gpu.py"), *arguments]
    environment = dict(os.environ)
    if hidden:
        hidden.mkdir()
        for name in ("tensorflow", "tf_keras", "cv2", "pandas", "scipy", "sklearn", "onnx", "rich"):
            (hidden / f"{name}.py").write_text("raise ImportError(__name__)\n")
        toolkit = str(BENCHMARKS.parent / "toolkit")
        environment["PYTHONPATH"] = os.pathsep.join([str(hidden), toolkit])
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_networks_are_trained_side_by_side_in_half_a_minute(
    store: Store, model: Artefact, images: Artefact, tmp_path: Path
) -> None:
    """The epochs are far more than fit: the clock ends both trainings."""
    train = {**EVERYTHING, "epochs": 100_000, "head_epochs": 10_000}
    (tmp_path / "tiny.yaml").write_text(dump_recipe(make_recipe(**train)))
    run_script("pack", str(images.path), str(tmp_path / "pack"))
    start = str(tmp_path / "start.keras")
    run_script("start", str(tmp_path / "tiny.yaml"), "--images", str(images.path), "--out", start)
    listed = [
        {"start": "start.keras", "out": "a.keras", "teachers": [str(model.file("model.keras"))]},
        {"start": str(model.file("model.keras")), "out": "b.keras"},
    ]
    listed = [{"recipe": "tiny.yaml", "images": "pack", **job} for job in listed]
    (tmp_path / "jobs.json").write_text(json.dumps(listed))
    listing = str(tmp_path / "jobs.json")
    printed = run_script("train", listing, "--minutes", "0.5", hidden=tmp_path / "hidden")
    for name in ("a", "b"):
        assert f"{name}: after " in printed
        file = tmp_path / f"{name}.keras"
        loaded = compress_model(store, model, "load_weights", {"file": str(file)})
        assert 0 < loaded.facts["change"]["trained_by"]["epochs"] < 100_000
