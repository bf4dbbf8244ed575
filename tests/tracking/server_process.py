"""MLflow's tracking server over a database, on loopback: ``python -m … DATABASE``.

It prints its port, and ends with its standard input. `mlflow server` starts processes of its own
beside the same application, which takes many times as long.
"""

from __future__ import annotations

import os
import sys
import threading

from lesiontk.tracking.mlflow_tracker import import_mlflow


def main() -> None:
    """Serve until standard input is closed."""
    import_mlflow()
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{sys.argv[1]}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = f"{sys.argv[1]}.files"
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
    from mlflow.server import app
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
