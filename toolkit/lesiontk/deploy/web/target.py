"""Target ``web``: a phone or tablet with a browser, served as static files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from lesiontk.deploy.golden_files import write_golden_files
from lesiontk.deploy.target import LITERT, BundleTarget, Contents, Runtime
from lesiontk.deploy.web.page import write_list, write_page
from lesiontk.deploy.web.runtime import write_runtime
from lesiontk.records import EngineSpec


class Web(BundleTarget):
    """The LiteRT engine unchanged in a page that works offline, on LiteRT.js."""

    engines: ClassVar[tuple[str, ...]] = ("tflite:int8",)
    first_command: ClassVar[str] = "python -m http.server --bind 127.0.0.1 --directory {folder}"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._archives: Path | None = None

    def use_runtime(self, archives: Path) -> None:
        """Take LiteRT.js from the packages' archives in a folder instead of npm."""
        self._archives = archives

    def runtimes(self, spec: EngineSpec) -> tuple[Runtime, ...]:
        return (LITERT,)

    def add_files(self, folder: Path, engine: Path, spec: EngineSpec) -> Contents:
        self.refuse_filters(spec)
        packages = write_runtime(folder / "runtime", self._archives)
        write_page(folder)
        golden = write_golden_files(folder, folder, "golden_images.zlib", compress=True)
        runtime = {
            package.name: {
                "version": package.version,
                "integrity": package.integrity,
                "licence": package.licence,
            }
            for package in packages
        }
        return Contents(
            "Any server of static files serves this folder. Browsers give a camera and an offline "
            "app to pages from HTTPS or localhost alone. To try it here:\n\n"
            "    python3 -m http.server --bind 127.0.0.1   # then open http://127.0.0.1:8000\n\n"
            "The page verifies each file by its SHA-256 (`files.js`), tests itself on the golden "
            "images at its first start, and works without network from then on. Pictures and "
            "results stay in the browser. The engine runs on one thread, or on up to four if the "
            "server sends `Cross-Origin-Opener-Policy: same-origin` and "
            "`Cross-Origin-Embedder-Policy: require-corp`. The page accepts JPEG, PNG and WebP of "
            "at most 50 megapixels.\n\n"
            "`run.py` tests the same engine on a computer:\n\n"
            "    pip install -r requirements.txt",
            bundle={"web": {"inference": "local", **golden, "runtime": runtime}},
            facts={"runtime": runtime},
        )

    def seal(self, folder: Path) -> None:
        write_list(folder)
