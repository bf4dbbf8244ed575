"""A server of the S3 protocol on loopback, with one bucket and made-up credentials."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

BUCKET = "lesions"


@contextmanager
def serving_s3() -> Iterator[str]:
    """Yield the URL of a bucket of a running server, which the environment leads to.

    Calls that fail are not tried again, so that a test of a failure is short.
    """
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "made-up",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }
    s3fs.S3FileSystem.clear_instance_cache()  # connections to another server
    try:
        with mock.patch.dict(os.environ, settings):
            s3fs.S3FileSystem(use_listings_cache=False).makedirs(BUCKET, exist_ok=True)
            yield f"s3://{BUCKET}"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
