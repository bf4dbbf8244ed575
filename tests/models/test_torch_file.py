"""A PyTorch file gives its tensors, and nothing that it contains is executed."""

from __future__ import annotations

import io
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesiontk.errors import DataError
from lesiontk.models.torch_file import MAGIC, MAX_BYTES, MAX_PICKLED, PROTOCOL, read_torch_tensors
from tests.fuzz.mutation import mutate_bytes

Tensors = dict[str, NDArray[Any]]


class Storage:
    """What a pickle refers to by a persistent id."""

    def __init__(self, key: str, kind: type, length: int) -> None:
        self.identity = ("storage", kind, key, "cpu", length, None)


class View:
    """A tensor, whose pickle calls PyTorch's function; sizes and strides count elements."""

    def __init__(self, storage: Storage, offset: int, shape: Any, strides: Any) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())


class FloatStorage:
    """Stands for PyTorch's."""


class LongStorage:
    """Stands for PyTorch's."""


def _rebuild_tensor_v2() -> None:
    """Stands for PyTorch's."""


class Writer(pickle.Pickler):
    """Writes as ``torch.save`` did, with names of this module in the place of PyTorch's."""

    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, Storage) else None

    def reducer_override(self, value: Any) -> Any:
        return (_rebuild_tensor_v2, value.arguments) if isinstance(value, View) else NotImplemented


def dump(value: Any) -> bytes:
    stream = io.BytesIO()
    Writer(stream, protocol=2).dump(value)
    content, here = stream.getvalue(), f"c{__name__}\n".encode()
    content = content.replace(here + b"_rebuild", b"ctorch._utils\n_rebuild")
    return content.replace(here, b"ctorch\n")


def view_of(key: str, array: NDArray[Any]) -> View:
    kind = FloatStorage if array.dtype == np.float32 else LongStorage
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return View(Storage(key, kind, array.size), 0, array.shape, strides)


def write_file(
    tensors: Tensors,
    *,
    views: Callable[[dict[str, Any]], Any] = lambda views: views,
    keys: Callable[[list[str]], Any] = lambda keys: keys,
    length: int | None = None,
    machine: Any = None,
) -> bytes:
    """Return a file of these tensors; what it says of them can be changed."""
    named = {
        name: view_of(str(number), array) for number, (name, array) in enumerate(tensors.items())
    }
    parts = [
        dump(MAGIC),
        dump(PROTOCOL),
        dump({"protocol_version": PROTOCOL, "little_endian": True} if machine is None else machine),
        dump(views(OrderedDict(named))),
        dump(keys([str(number) for number in range(len(tensors))])),
    ]
    for array in tensors.values():
        parts.append((array.size if length is None else length).to_bytes(8, "little"))
        parts.append(array.ravel("K").tobytes())
    return b"".join(parts)


def sample() -> Tensors:
    generator = np.random.default_rng(3)
    return {
        "conv.weight": np.asarray(generator.normal(size=(3, 3, 2, 4)), np.float32).transpose(
            3, 2, 0, 1
        ),
        "bn.bias": np.asarray(generator.normal(size=5), np.float32),
        "bn.num_batches_tracked": np.array(7, np.int64),
    }


def read(folder: Path, content: bytes) -> Tensors:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return read_torch_tensors(path)


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    dtype = draw(st.sampled_from([np.float32, np.int64]))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-9, 9, shape).astype(dtype)
    return (
        np.ascontiguousarray(values)
        .reshape(shape)
        .transpose(draw(st.permutations(range(len(shape)))))
    )


@given(st.dictionaries(st.text(max_size=5), arrays(), max_size=4))
def test_tensors_come_back_whatever_the_order_of_their_axes_in_memory(
    tmp_path_factory: pytest.TempPathFactory, tensors: Tensors
) -> None:
    found = read(tmp_path_factory.mktemp("torch"), write_file(tensors))
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_tensors_may_be_parts_of_one_storage(tmp_path: Path) -> None:
    base = np.arange(12, dtype=np.float32)

    def split(views: dict[str, Any]) -> Any:
        storage = views["base"].arguments[0]
        return {"low": View(storage, 0, (2, 3), (3, 1)), "high": View(storage, 7, (2,), (4,))}

    found = read(tmp_path, write_file({"base": base}, views=split))
    np.testing.assert_array_equal(found["low"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["high"], [7, 11])


# ------------------------------------------------------------------------------ refused


class Attack:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("place", ["machine", "views", "keys"])
@pytest.mark.parametrize("name", ["os.system", "builtins.eval"])
def test_a_pickle_that_calls_a_function_is_refused_and_calls_nothing(
    place: str, name: str, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    arguments = {
        "os.system": (f"touch {touched}",),
        "builtins.eval": (f"__import__('pathlib').Path({str(touched)!r}).touch()",),
    }
    module, _, attribute = name.rpartition(".")
    attack = Attack(getattr(__import__(module), attribute), *arguments[name])
    pickle.loads(pickle.dumps(attack))
    assert touched.is_file()  # the attack works where a pickle is executed
    touched.unlink()
    change: Any = attack if place == "machine" else lambda _: attack
    with pytest.raises(DataError, match=r"weights\.pth asks for '.*'; expected tensors alone"):
        read(tmp_path, write_file(sample(), **{place: change}))
    assert not touched.exists()


def change_view(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """Return a function that changes what a file declares of its first tensor."""

    def change(views: dict[str, Any]) -> Any:
        view = next(iter(views.values()))
        storage, offset, shape, strides, *rest = view.arguments
        given = {"storage": storage, "offset": offset, "shape": shape, "strides": strides} | changes
        view.arguments = (*given.values(), *rest)
        return views

    return change


HUGE = 2**29
BEGINNING = dump(MAGIC) + dump(PROTOCOL)
CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "before 1.6"),
    "text": (b"no weights", "before 1.6"),
    "zip": (b"PK\x03\x04" + bytes(100), "before 1.6; expected a file of torch.save"),
    "of another program": (dump(1) * 5, "before 1.6"),
    "cut in a storage": (write_file(sample())[:-3], "expected at least"),
    "cut in the pickles": (write_file(sample())[:200], "is damaged"),
    "with more bytes": (write_file(sample()) + b"more", "4 bytes follow the last storage"),
    "big-endian": (write_file(sample(), machine={"little_endian": False}), "not little-endian"),
    "storages of other lengths": (write_file(sample(), length=71), "stores 71 numbers where"),
    "storages of huge lengths": (
        write_file(sample(), length=2**63),
        "where its tensors declare 72",
    ),
    "another list of storages": (write_file(sample(), keys=lambda k: k[1:]), "differs from those"),
    "storages without names": (write_file(sample(), keys=lambda k: [1, 2, 3]), "have no names"),
    "a list of lists": (write_file(sample(), views=list), "other objects than named tensors"),
    "text beside tensors": (
        write_file(sample(), views=lambda views: {**views, "note": "text"}),
        "other objects than named tensors",
    ),
    "a view past its storage": (
        write_file(sample(), views=change_view(offset=1)),
        "exceeds its storage of 72 numbers",
    ),
    "a bomb: one number a billion times": (
        write_file(sample(), views=change_view(shape=(HUGE, 2), strides=(0, 0))),
        "larger than the numbers stored for them",
    ),
    "a bomb: many views of one storage": (
        write_file(
            {"base": np.zeros(1000, np.float32)},
            views=lambda views: {str(n): views["base"] for n in range(1000)},
        ),
        "larger than the numbers stored for them",
    ),
    "a stride that jumps out": (
        write_file(sample(), views=change_view(shape=(2,), strides=(HUGE,))),
        "exceeds its storage",
    ),
    "negative strides": (
        write_file(sample(), views=change_view(shape=(2,), strides=(-1,))),
        "sizes that are no counts",
    ),
    "sizes beyond any number": (
        write_file(sample(), views=change_view(shape=(1,), strides=(2**2000,))),
        "sizes that are no counts",
    ),
    "a thousand dimensions": (
        write_file(sample(), views=change_view(shape=(1,) * 1000, strides=(1,) * 1000)),
        "more dimensions",
    ),
    "no sizes": (write_file(sample(), views=change_view(shape=())), "more dimensions"),
    "two types of one storage": (
        write_file(
            sample(),
            views=lambda views: {
                **views,
                "again": View(Storage("0", LongStorage, 72), 0, (1,), (1,)),
            },
        ),
        "declared twice",
    ),
    "an empty tensor": (
        write_file(sample(), views=change_view(shape=(0,), strides=(1,))),
        "exceeds its storage",
    ),
    "a storage that is text": (
        write_file(sample(), views=change_view(storage="0")),
        "has no storage",
    ),
    "a bomb: pickled text": (BEGINNING + dump(["y" * MAX_PICKLED]), "is damaged"),
    "a bomb: bytes that are not there": (
        BEGINNING + b"\x80\x05\x96" + (2**62).to_bytes(8, "little"),
        r"has the pickle instruction .*x96",
    ),
    "a bomb: text that is not there": (BEGINNING + b"\x80\x02X\xff\xff\xff\xff", "is damaged"),
    "a tuple in a tuple, often": (
        BEGINNING + b"\x80\x02)" + b"\x85" * 300_000 + b"." + dump({}) + dump([]),
        "not little-endian",
    ),
    "a place in the memo": (BEGINNING + b"\x80\x02Nr\xff\xff\xff\x7f." * 3, "little-endian"),
    "an append to a number": (BEGINNING + b"\x80\x02K\x01(K\x02e.", "no list"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_any_other_file_is_refused(case: str, tmp_path: Path) -> None:
    content, message = CONTENTS[case]
    with pytest.raises(DataError, match=rf"^weights\.pth .*{message}"):
        read(tmp_path, content)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)  # takes no space on disk
    with pytest.raises(DataError, match=r"1,073,741,825 bytes; expected at most"):
        read_torch_tensors(path)


def test_a_damaged_file_gives_tensors_or_a_data_error(tmp_path: Path) -> None:
    content, refused = write_file(sample()), 0
    for seed in range(1500):
        try:
            read(tmp_path, mutate_bytes(content, random.Random(seed)))
        except DataError:
            refused += 1
    assert refused > 300
