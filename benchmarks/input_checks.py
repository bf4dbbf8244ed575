"""Fit the input checks of published engines, and publish whom they refuse.

    python benchmarks/input_checks.py --data HAM10000 [RECIPE…]

For each recipe (default: all) the checks of `tflite_int8.tflite` are fitted as `lesiontk
input-checks` does, on training and validation images of the engine's own split. They go beside the
engine, into the folder `input_checks`, where `lesiontk bundle` finds them; what they refuse goes to
results/input_checks.json and .md. Pixels are decoded again for each engine: two to four minutes a
recipe on two cores.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import click
from model_card import INT8
from published_images import read_published_images

from lesiontk.api.progress import make_progress
from lesiontk.backends import find_backend
from lesiontk.data.images import ImageSet
from lesiontk.evaluate.fit_input_checks import InputChecks
from lesiontk.evaluate.input_checks import ARRAYS, DOCUMENT
from lesiontk.files.whole_files import write_whole
from lesiontk.records import ImageRecord
from lesiontk.stage import Context
from lesiontk.stages.input_checks import InputChecksConfig, fit_input_checks

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "input_checks.json"


@click.command()
@click.argument("recipes", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
def main(recipes: tuple[str, ...], data: Path) -> None:
    """Fit the input checks of the published engines of RECIPES."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for folder in sorted(path.parent for path in (HERE / "engines").glob(f"*/{INT8}")):
        if not recipes or folder.name in recipes:
            known[folder.name] = fit_published(folder, data).to_document()
            found = {name: InputChecks.from_document(known[name]) for name in sorted(known)}
            text = json.dumps({name: row.to_document() for name, row in found.items()}, indent=1)
            write_whole(
                {
                    RESULTS: f"{text}\n".encode(),
                    RESULTS.with_suffix(".md"): render_tables(found).encode(),
                }
            )


def fit_published(folder: Path, data: Path) -> InputChecks:
    """Write the checks beside the engine, and return what they are and refuse."""
    engine = folder / INT8
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        context = Context(made, made, folder.name, make_progress())
        images = read_images(engine, data)
        facts = fit_input_checks(engine, "tflite:int8", images, InputChecksConfig(), context)
        beside = folder / "input_checks"
        beside.mkdir(exist_ok=True)
        write_whole({beside / name: (made / name).read_bytes() for name in (DOCUMENT, ARRAYS)})
    return facts


def read_images(engine: Path, data: Path) -> ImageSet:
    """Return the images that are needed of the engine's split, as its input."""
    counts: Counter[str] = Counter()

    def keep(record: ImageRecord, subset: str) -> bool:
        # As many training images of a diagnosis as a class may contribute.
        counts[record.diagnosis] += subset == "train"
        return subset != "train" or counts[record.diagnosis] <= 500

    spec = find_backend(engine)().read_spec(engine)
    return read_published_images(spec, engine.parent.name, data, keep)


def render_tables(found: dict[str, InputChecks]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Input checks of the published engines",
        "",
        "Written by `benchmarks/input_checks.py`. Bounds and score are chosen on training and "
        "validation images with the int8 TFLite engine's own outputs. Refused test images, of each "
        "class: for their quality / as out of domain, of n (upper 95 % bound of both). Pictures "
        "that are not dermoscopic: the share refused by both checks, the AUROC of the domain score "
        "against test images, and the share that the score alone refuses at 5 % false refusals on "
        "validation. Photographs had no part in the choice.",
    ]
    for recipe, row in found.items():
        refused = row.false_refusals
        lines += [
            "",
            f"## {recipe}",
            "",
            f"{row.score}. Validation images refused (n = {row.images['validation']}): "
            f"{refused['poor_quality']:.1%} for quality, {refused['out_of_domain']:.1%} as out of "
            "domain.",
            "",
            "| test images | n | quality | domain | refused | upper bound |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *(
                f"| {c.label} | {c.n} | {c.poor_quality} | {c.out_of_domain} | {c.share:.1%} | "
                f"{c.upper:.1%} |"
                for c in row.classes
            ),
            "",
            "| not dermoscopic | n | quality | domain | refused | AUROC | at 5 % |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *(
                f"| {f.family} | {f.n} | {f.poor_quality} | {f.out_of_domain} | {f.share:.1%} | "
                f"{f.auroc:.3f} | {f.at_5:.1%} |"
                for f in row.families
            ),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
