"""Bundles: folders that run an engine on a device, test themselves there and need no lesiontk.

A target is one file and one registration line; the registered class is called with the target's
name, because a family such as the Jetsons differs in data alone.
"""

from __future__ import annotations

from lesiontk.deploy.target import BundleTarget
from lesiontk.registry import Registry

BUNDLE_TARGETS: Registry[type[BundleTarget]] = Registry("bundle target")
BUNDLE_TARGETS.register("linux-arm64", "lesiontk.deploy.linux_arm64:LinuxArm64")
BUNDLE_TARGETS.register("android", "lesiontk.deploy.android:Android")
for _name in (
    "jetson-xavier-jetpack5",
    "jetson-orin-jetpack5",
    "jetson-orin-jetpack6",
    "jetson-orin-jetpack7",
):
    BUNDLE_TARGETS.register(_name, "lesiontk.deploy.jetson:Jetson")


def find_bundle_target(name: str) -> BundleTarget:
    """Return the target called `name`; `UsageError` names the known ones."""
    return BUNDLE_TARGETS.get(name)(name)
