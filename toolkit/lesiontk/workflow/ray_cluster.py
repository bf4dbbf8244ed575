"""Ray on this machine alone, or a cluster whose machines can use the workspace."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from lesiontk import __version__
from lesiontk.errors import MissingRequirementError, UsageError, show_value
from lesiontk.store import Store
from lesiontk.system.cores import count_cores
from lesiontk.workflow.ray_worker import probe_node

logger = logging.getLogger(__name__)

SECONDS = 10.0
"""In which a cluster must answer."""
NODE_SECONDS = 120.0
"""In which each machine of a cluster must start a process."""
STARTS = 3
"""Ray gives its own processes 30 seconds to start, which a busy machine may exceed."""
OBJECT_STORE = 80 * 2**20
"""Bytes of Ray's shared memory, near its minimum: only names travel through it."""
LONGEST = 40
"""Characters of a temporary folder below which the paths of Ray's sockets are short enough."""
AUTO = "auto"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_lease_timeout_milliseconds": "20",
}
"""No report to Ray's makers; a task that reserves no GPU may still use one, as TensorRT does; and
cores are free at once after a task, so that a measurement need not wait for them."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection to Ray.

    `cpus` and `gpus` are those of all machines, `largest` the cores of the largest one, and `own`
    those of the machine of this process, `node`. With `common` all machines have the workspace.
    """

    ray: Any
    node: str
    cpus: int
    gpus: int
    largest: int
    own: int
    common: bool = True

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """The errors of a task whose process or machine ended."""
        errors = self.ray.exceptions
        return (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError)

    def pin(self) -> Any:
        """Return the strategy that schedules a task on the machine of this process."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.node, soft=False)


@contextmanager
def connect(store: Store, address: str | None) -> Iterator[Cluster]:
    """Yield a connection to the cluster at an address, or to Ray on this machine alone.

    Ray that runs in this process already is used, and left running. Raises as
    `lesiontk.workflow.executor.open_executor`.
    """
    ray = import_ray()
    if ray.is_initialized():
        _check_same(ray, address)
        yield describe_cluster(ray, store)
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM,)}
    with _start(ray) if address is None else _join(ray, address):
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # which Ray replaces
                signal.signal(number, handler)
        yield describe_cluster(ray, store)


def import_ray() -> Any:
    """Return the package. Raises `MissingRequirementError` with the remedy if it is missing."""
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS.items()})
    try:
        import ray
    except ImportError as error:
        raise MissingRequirementError(
            f"workers of Ray need the package ray ({error}): pip install 'lesiontk[ray]'."
        ) from error
    return ray


def describe_cluster(ray: Any, store: Store) -> Cluster:
    """Return the connection, after a check of each machine."""
    node = ray.get_runtime_context().get_node_id()
    nodes = {each["NodeID"]: each for each in ray.nodes() if each["Alive"]}
    cpus = {name: int(each["Resources"].get("CPU", 0)) for name, each in nodes.items()}
    cluster = Cluster(
        ray=ray,
        node=node,
        cpus=sum(cpus.values()),
        gpus=sum(int(each["Resources"].get("GPU", 0)) for each in nodes.values()),
        largest=max(cpus.values()),
        own=cpus[node],
    )
    if not cluster.cpus:
        raise UsageError("the cluster of Ray has no CPU; expected one at least.")
    others = [each for name, each in nodes.items() if name != node]
    return replace(cluster, common=not others or _check_nodes(ray, store, others))


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port. Raises `UsageError` for what is no address."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"the address of Ray is {show_value(address)}; expected HOST:PORT of a cluster that "
            "this machine has joined by `ray start --address=HOST:PORT`, or auto."
        )
    return host.strip("[]"), int(port)


def _check_same(ray: Any, address: str | None) -> None:
    current = ray.get_runtime_context().gcs_address
    if address not in (None, AUTO, current):
        raise UsageError(
            f"this process is connected to Ray at {current}; expected the same address instead of "
            f"{address}, or ray.shutdown() before."
        )


@contextmanager
def _start(ray: Any) -> Iterator[None]:
    """Run Ray on this machine while the body runs; its files are removed."""
    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="r-", dir=base if len(base) <= LONGEST else "/tmp")
    try:
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(
                    address="local",
                    num_cpus=count_cores(),
                    object_store_memory=OBJECT_STORE,
                    include_dashboard=False,
                    _temp_dir=folder,
                    **quiet_settings(),
                )
                break
            except Exception as error:  # what Ray raises is a bare Exception
                ray.shutdown()
                if attempt == STARTS:
                    raise MissingRequirementError(
                        f"Ray did not start in {STARTS} attempts: {_first_line(error)} Try again "
                        "when the machine is less busy, or use no --workers ray."
                    ) from error
                logger.warning("Ray did not start; trying again: %s", _first_line(error))
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _join(ray: Any, address: str) -> Iterator[None]:
    """Be connected to a cluster while the body runs."""
    if address != AUTO:
        host, port = parse_address(address)
        try:
            _greet(host, port)
        except OSError as error:
            raise MissingRequirementError(
                f"no cluster of Ray answers at {address}: {error}. Start one by `ray start "
                "--head`, join it by `ray start --address=HOST:PORT`, or correct --ray-address."
            ) from error
    try:
        ray.init(address=address, runtime_env={"env_vars": SETTINGS}, **quiet_settings())
    except Exception as error:
        ray.shutdown()
        raise MissingRequirementError(
            f"the cluster of Ray at {address} cannot be used: {_first_line(error)} Expected one "
            f"of Ray {ray.__version__} that this machine has joined by `ray start --address=…`."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _greet(host: str, port: int) -> None:
    """Raise `OSError` unless a gRPC server answers; Ray itself would wait for two minutes."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        connection.sendall(HTTP2_PREFACE)
        header = connection.recv(9)
    if header[3:4] != b"\x04":  # the type of a frame of settings, with which HTTP/2 begins
        raise OSError("another program listens there")


def quiet_settings() -> dict[str, Any]:
    """Return the settings without Ray's own lines; those of lesiontk come by another way."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    # It has no setting for its messages about ended workers, which it prints on standard output.
    worker.print_to_stdstream = lambda data, **_: logger.debug("Ray: %s", data.get("lines"))
    return {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}


def _check_nodes(ray: Any, store: Store, nodes: list[dict[str, Any]]) -> bool:
    """Return whether the other machines have the workspace. Raises if one cannot do without."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    store.workspace.mkdir(parents=True, exist_ok=True)
    mark = store.workspace.resolve() / f".ray-{uuid.uuid4().hex}"
    probe, common = ray.remote(probe_node), True
    try:
        mark.touch()
        tasks = {
            each["NodeManagerAddress"]: probe.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(each["NodeID"], soft=False),
            ).remote(mark)
            for each in nodes
        }
        for host, task in tasks.items():
            try:
                version, sees = ray.get(task, timeout=NODE_SECONDS)
            except ray.exceptions.RayError as error:
                raise MissingRequirementError(
                    f"the machine {host} of the cluster cannot run lesiontk: {_first_line(error)} "
                    f"Install lesiontk {__version__} there, in the environment of Ray."
                ) from error
            if version != __version__:
                raise MissingRequirementError(
                    f"the machine {host} of the cluster has lesiontk {version}; expected "
                    f"{__version__}, as here."
                )
            if not sees and store.shared is None:
                raise UsageError(
                    f"the machine {host} of the cluster does not have the workspace "
                    f"{store.workspace}; expected a folder that all machines have, or --shared URL "
                    "with a store for the artefacts."
                )
            common = common and sees
        return common
    finally:
        with suppress(OSError):
            mark.unlink()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if line.endswith(".") else f"{line}."
