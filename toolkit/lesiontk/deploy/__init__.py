"""Bundles: folders that run an engine on a device without lesiontk, with a self-test.

A target is one file and one registration line; the registered class is called with the target's
name, because targets of a family such as the Jetsons differ only in data.
"""

from __future__ import annotations

from lesiontk.deploy.target import BundleTarget
from lesiontk.registry import Registry

BUNDLE_TARGETS: Registry[type[BundleTarget]] = Registry("bundle target")
for _name in ("linux-arm64", "linux-x86-64"):
    BUNDLE_TARGETS.register(_name, "lesiontk.deploy.linux:Linux")
for _name in ("android", "ios"):
    BUNDLE_TARGETS.register(_name, "lesiontk.deploy.mobile.target:Phone")
BUNDLE_TARGETS.register("triton", "lesiontk.deploy.triton:Triton")
BUNDLE_TARGETS.register("web", "lesiontk.deploy.web.target:Web")
for _name in (
    "jetson-xavier-jetpack5",
    "jetson-orin-jetpack5",
    "jetson-orin-jetpack6",
    "jetson-orin-jetpack7",
):
    BUNDLE_TARGETS.register(_name, "lesiontk.deploy.jetson:Jetson")


def find_bundle_target(name: str) -> BundleTarget:
    """Return the target called `name`. Raises `UsageError` with the known names."""
    return BUNDLE_TARGETS.get(name)(name)
