"""Files that run a bundle as a service: systemd units and a Dockerfile."""

from __future__ import annotations

from pathlib import Path

PLACE = "/opt/lesiontk"
"""Where the units and the image expect the bundle."""
UNITS = {"lesiontk-serve.service": "serve", "lesiontk-watch.service": "watch"}
IGNORED = ".venv\n"

HARDENING = """\
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateTmp=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
UMask=0077
"""
CPU_ONLY = """\
PrivateDevices=yes
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
GPU = """\
SupplementaryGroups=video render
"""
COMMANDS = {
    "serve": (
        "serve --listen 127.0.0.1:8080",
        "RestrictAddressFamilies=AF_INET AF_INET6\n"
        "# For other machines, in `systemctl edit lesiontk-serve`:\n"
        "#   [Service]\n"
        "#   LoadCredential=token:/etc/lesiontk.token\n"
        "#   ExecStart=\n"
        f"#   ExecStart={PLACE}/.venv/bin/python {PLACE}/run.py serve --listen 0.0.0.0:8080 \\\n"
        "#     --token-file ${CREDENTIALS_DIRECTORY}/token\n",
    ),
    "watch": (
        "watch /srv/dermoscopy %S/lesiontk-watch/results.sqlite",
        "StateDirectory=lesiontk-watch\nReadOnlyPaths=/srv/dermoscopy\nPrivateNetwork=yes\n"
        "RestrictAddressFamilies=AF_UNIX\n",
    ),
}


def write_service_files(folder: Path, image: str, *, gpu: bool) -> None:
    """Write ``systemd/*.service``, ``Dockerfile`` and ``.dockerignore`` into a bundle.

    `image` is the base image. With `gpu` devices stay visible, and the image tests the bundle when
    it starts, not when it is built, because a build sees no GPU.
    """
    (folder / "systemd").mkdir()
    for name, command in UNITS.items():
        (folder / "systemd" / name).write_text(render_unit(command, gpu=gpu))
    (folder / "Dockerfile").write_text(render_dockerfile(image, gpu=gpu))
    (folder / ".dockerignore").write_text(IGNORED)


def render_unit(command: str, *, gpu: bool) -> str:
    """Return the systemd unit of a command of the runner."""
    words, settings = COMMANDS[command]
    return f"""\
[Unit]
Description=lesiontk, {command}
After=network.target

[Service]
Type=exec
ExecStart={PLACE}/.venv/bin/python {PLACE}/run.py {words}
WorkingDirectory={PLACE}
Restart=on-failure
RestartSec=30
{settings}{HARDENING}{GPU if gpu else CPU_ONLY}
[Install]
WantedBy=multi-user.target
"""


def render_dockerfile(image: str, *, gpu: bool) -> str:
    """Return a Dockerfile that installs the pinned requirements and serves as another user."""
    test = 'RUN ["python3", "run.py", "self-test", "--rounds", "0"]\n'
    plan = f"RUN chown 65534:65534 {PLACE}\n"  # the engine is built there at the first start
    pip = "python3 -m pip install --no-cache-dir --require-hashes --requirement requirements.txt"
    health = "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=5)"
    return f"""\
FROM {image}
WORKDIR {PLACE}
COPY requirements.txt ./
RUN {pip}
COPY . ./
{plan if gpu else test}USER 65534:65534
EXPOSE 8080
HEALTHCHECK --start-period={"15m" if gpu else "1m"} CMD ["python3", "-c", "{health}"]
ENTRYPOINT ["python3", "run.py"]
CMD ["serve", "--listen", "0.0.0.0:8080"]
"""
