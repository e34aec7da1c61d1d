"""Tables of README.md and other pages, made from the figures in `results/`.

    python tests/benchmarks/tables.py

Between `<!-- table: KIND NAME -->` and `<!-- end -->` stands what KIND makes of
`results/NAME.json`; without NAME it is `results/KIND.json`. A new table is a function from the
parsed file to lines of Markdown, entered in `KINDS`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "speed.md",
    ROOT / "docs" / "training.md",
    ROOT / "docs" / "decisions" / "0011-requests-side-by-side.md",
    ROOT / "docs" / "decisions" / "0016-zones-and-lines-are-our-own.md",
)
RESULTS = ROOT / "tests" / "benchmarks" / "results"
BLOCK = re.compile(
    r"(?P<start><!-- table: (?P<kind>[\w-]+)(?: (?P<name>[\w.-]+))? -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)
SIDES = {
    "sightline": "Sightline",
    "ultralytics_square": "Ultralytics, square",
    "ultralytics_rectangle": "Ultralytics, rectangle",
    "tutorial_square": "tutorials' loop, square",
    "tutorial_rectangle": "tutorials' loop, rectangle",
    "our_parts_in_one_thread": "our parts in one thread",
}
"""What the table calls each side of `compare_peers.py`."""


def main() -> None:
    """Rewrite the tables of every page in place."""
    for page in PAGES:
        page.write_text(render(page.read_text()))


def render(text: str, results: Path = RESULTS) -> str:
    """The text with every marked table made anew."""

    def table(block: re.Match[str]) -> str:
        kind = block["kind"]
        if kind not in KINDS:
            raise SystemExit(f"no table {kind!r}; there are {', '.join(KINDS)}")
        path = results / f"{block['name'] or kind}.json"
        if not path.exists():
            raise SystemExit(f"table {kind!r}: no figures in {path}")
        lines = KINDS[kind](json.loads(path.read_text()))
        return block["start"] + "".join(f"{line}\n" for line in lines) + block["end"]

    return BLOCK.sub(table, text)


def peers(result: dict[str, Any]) -> Iterator[str]:
    """`compare_peers.py`: a row a side and precision, tracks only beside annotated video."""
    runs = result["comparisons"][0]["sides"]["sightline"]["frames_per_s"]["runs"]
    cases = {(case["precision"], case["output"]): case for case in result["comparisons"]}
    columns = ("", "input", "computes in", "frames/s", "CPU-ms a frame", "Sightline is faster by")
    yield from markdown(
        (*columns, "with video: frames/s", "CPU-ms", "faster by"), _peer_rows(cases)
    )
    yield ""
    yield (
        f"{_capital(result['clip'])}; {result['cores']} cores of {result['cpu']}; weights "
        f"{result['weights']}; medians of {runs}, least to most in brackets; commit "
        f"{result['commit']}."
    )
    if result["left_out"]:
        sides: dict[str, list[str]] = {}
        for side, why in result["left_out"].items():
            sides.setdefault(why, []).append(side)
        reasons = "; ".join(
            f"{', '.join(names) if len(names) < 3 else f'{len(names)} sides'} ({why})"
            for why, names in sides.items()
        )
        yield f"Left out: {reasons}."


def _peer_rows(cases: dict[tuple[str, str], dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for precision in dict.fromkeys(precision for precision, _ in cases):
        outputs = [cases.get((precision, output)) for output in ("tracks", "video")]
        names = dict.fromkeys(name for case in outputs if case for name in case["sides"])
        for name in names:
            side = next(case["sides"][name] for case in outputs if case and name in case["sides"])
            label = SIDES[name] + (", int8" if precision == "int8" else "")
            height, width = side["input_hw"]
            figures = (cell for case in outputs for cell in _peer_cells(case, name))
            yield (label, f"{height}x{width}", side["precision"], *figures)


def _peer_cells(case: dict[str, Any] | None, name: str) -> tuple[str, str, str]:
    """Rate, processor time and Sightline's lead of one side; empty where it was not run."""
    if case is None or name not in case["sides"]:
        return "", "", ""
    side = case["sides"][name]
    rate, against = side["frames_per_s"], case["sightline_against"].get(name)
    return (
        f"{rate['median']:.1f} ({rate['min']:.1f}-{rate['max']:.1f})",
        f"{side['cpu_ms']['median']:.1f}",
        f"{against['frames_per_s']['median']:.2f}" if against else "",
    )


def accuracy(result: dict[str, Any]) -> Iterator[str]:
    """`bench_accuracy.py --table`: a row for each engine, precision and size of the image."""
    rows = (
        (
            row["engine"],
            "exact f32" if row["asked"] == "accuracy" else row["precision"],
            str(row["image_size"]),
            *(f"{row[name]:.4f}".removeprefix("0") for name in ("AP", "AP50", "AP75")),
        )
        for row in result["figures"]
    )
    return markdown(("engine", "precision", "image size", "AP", "AP50", "AP75"), rows)


def bound(results: list[dict[str, Any]]) -> Iterator[str]:
    """`bench_bound.py`: the stages' costs, their bound, and what the pipeline makes of it."""
    columns = ("", "writes", "each stage alone, CPU-ms a frame", "bound", "pipeline", "share")
    yield from markdown(columns, map(_bound_row, results))
    first = results[0]
    yield ""
    yield (
        f"{first['cores']} cores of {first['cpu']}; frames/s; medians of "
        f"{first['pipeline']['frames_per_s']['runs']}; commit {first['commit']}."
    )


def _bound_row(result: dict[str, Any]) -> tuple[str, ...]:
    costs = ", ".join(
        f"{name} {times['median']:.1f}" for name, times in result["alone_cpu_ms"].items()
    )
    pipeline = result["pipeline"]
    return (
        f"{result['model']['scale']}, {result['model']['precision']}",
        result["outputs"],
        costs,
        f"{result['bound']['frames_per_s']['median']:.1f}",
        f"{pipeline['frames_per_s']['median']:.1f}",
        f"{pipeline['share_of_bound']['median']:.2f}",
    )


def streams(result: dict[str, Any]) -> Iterator[str]:
    """`sightline bench --streams --json`: what each number of cameras got."""
    columns = ("streams", "tracked frames/s", "p50", "p95", "lost", "least/most", "")
    yield from markdown(columns, map(_streams_row, result["trials"]))
    yield ""
    yield (
        f"{result['clip']}; p95 within {result['max_latency_s']:g} s and at most "
        f"{result['most_lost']:.0%} lost: {result['most_streams']} streams; "
        f"{result['cores']} cores of {result['cpu']}; commit {result['commit']}."
    )


def _streams_row(trial: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(trial["streams"]),
        f"{trial['frames_per_s']:.1f}",
        *(
            "" if late is None else f"{late * 1000:.0f} ms"
            for late in (trial["p50_s"], trial["p95_s"])
        ),
        f"{trial['lost']:.1%}",
        f"{trial['evenness']:.2f}",
        "carried" if trial["carried"] else "",
    )


def batches(result: dict[str, Any]) -> Iterator[str]:
    """`bench_batches.py`: a row for each number of requests and of pictures in each."""
    models = result["models"]
    rows = (
        (
            str(sides[0]["requests"]),
            str(sides[0]["batch"]),
            *(
                cell
                for side in sides
                for cell in (
                    f"{side['images_per_s']['median']:.1f}",
                    f"{side['cpu_ms']['median']:.1f}",
                )
            ),
        )
        for sides in zip(*(model["sides"] for model in models), strict=True)
    )
    columns = (
        f"{model['scale']}: {what}" for model in models for what in ("pictures/s", "CPU-ms each")
    )
    yield from markdown(("requests", "pictures in each", *columns), rows)
    yield ""
    yield (
        f"{result['canvas']} in {models[0]['precision']}; {result['cores']} cores of "
        f"{result['cpu']}; medians of "
        f"{models[0]['sides'][0]['images_per_s']['runs']}; commit {result['commit']}."
    )


def cuda_engine(result: dict[str, Any]) -> Iterator[str]:
    """`bench_cuda_engine.py`: a row for each size of the model and of the batch."""
    sides = ("eager", "compiled", "captured", "whole engine")
    rows = (
        (
            model["scale"],
            str(batch["batch"]),
            *(
                cell
                for side in (batch["sides"][name] for name in sides)
                for cell in (f"{side['p50_ms']:.2f}", f"{side['images_per_s']:.0f}")
            ),
            f"{batch['sides']['captured']['share_of_peak']:.0%}",
            f"{batch['apart']['box_px_max']:.2f} px, {batch['apart']['score_max']:.4f}",
        )
        for model in result["scales"]
        for batch in model["batches"]
    )
    columns = (f"{side}: {what}" for side in sides for what in ("ms", "images/s"))
    last = ("captured: share of the peak", "farthest from float32")
    yield from markdown(("size", "batch", *columns, *last), rows)
    yield ""
    hows = sorted({batch["how"] for model in result["scales"] for batch in model["batches"]})
    yield (
        f"{result['canvas']} in {result['numbers']} by {', '.join(hows)}; {result['gpu']}, whose "
        f"matrix peak was measured at {result['matrix_tflops']:.0f} TFLOP/s; medians; torch "
        f"{result['versions']['torch']}."
    )


def training_step(results: list[dict[str, Any]]) -> Iterator[str]:
    """`bench_training_step.py`: a row for each size and precision."""
    rows = (
        (
            result["scale"],
            precision,
            f"{side['images_per_s']['median']:.1f}",
            *(
                f"{side['share'][part]:.0%}"
                for part in ("forward", "backward", "loss", "assignment", "update")
            ),
        )
        for result in results
        for precision, side in result["sides"].items()
    )
    columns = ("size", "precision", "images/s", "forward", "backward", "loss")
    yield from markdown((*columns, "of it assignment", "update"), rows)
    yield ""
    first = results[0]
    yield (
        f"Batches of {first['batch']}, {first['image_size']} px, with the published auxiliary "
        f"branch; {first['threads']} threads on {first['cores']} cores of {first['cpu']}; "
        f"commit {first['commit']}."
    )


def assignment(result: dict[str, Any]) -> Iterator[str]:
    """`bench_assignment.py`: time and memory, beside what one table of all pairs would take."""
    rows = (
        (
            str(case["images"]),
            str(case["objects"]),
            str(case["image_size"]),
            f"{case['mean_size']} px",
            f"{case['assign_ms']['median']:.1f} ms",
            f"{case['peak_mb']:.1f} MB",
            f"{case['table_mb']:.0f} MB",
        )
        for case in result["cases"]
    )
    columns = ("images", "objects in each", "image size", "their mean size", "time", "peak memory")
    yield from markdown((*columns, "all pairs' boxes alone"), rows)
    yield ""
    yield (
        f"{result['threads']} threads on {result['cores']} cores of {result['cpu']}; "
        f"commit {result['commit']}."
    )


def loading(result: dict[str, Any]) -> Iterator[str]:
    """`bench_loading.py`: what the workers make, and how long devices of some speeds wait."""
    rates = list(result["rows"][0]["device_waits"])
    rows = (
        (
            str(row["image_size"]),
            str(row["workers"]),
            f"{row['store_mb']} MB" if row["store_mb"] else "none",
            f"{row['images_per_s']:.0f}",
            *(f"{row['device_waits'][rate]:.1%}" for rate in rates),
        )
        for row in result["rows"]
    )
    columns = ("image size", "workers", "store", "images/s")
    yield from markdown((*columns, *(f"waits at {rate} images/s" for rate in rates)), rows)
    yield ""
    yield (
        f"The published recipe on {result['images']} images of {result['data']}; {result['cores']} "
        f"cores of {result['cpu']}; commit {result['commit']}."
    )


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of one table."""
    header = list(columns)
    yield _line(header)
    yield "|" + "---|" * len(header)
    yield from map(_line, rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def rules(result: dict[str, Any]) -> Iterator[str]:
    """`bench_rules.py`: time and wrong answers of zones and lines, then what each rule takes."""
    spent, wrong = result["microseconds_a_frame"], result["wrong_answers"]
    alone = spent["rules"]["none"]
    lines = wrong["line"].items()
    rows = (
        ("a zone, µs", *(f"{spent['zone'][side]:.0f}" for side in ("ours", "supervision"))),
        (
            "a line, µs",
            f"{spent['line']['ours'] - alone:.0f}, its events included",
            f"{spent['line']['supervision']:.0f}",
        ),
        (
            f"wrong of {wrong['zone']['points']} points within 2 px of an edge",
            *(str(wrong["zone"][side]) for side in ("ours", "supervision")),
        ),
        *(
            (
                f"wrong of {line['walks']} {pace} walks around a line",
                *(str(line[side]) for side in ("ours", "supervision")),
            )
            for pace, line in lines
        ),
    )
    yield from markdown(("", "ours", "supervision"), rows)
    yield ""
    each = {kind: time for kind, time in spent["rules"].items() if kind not in _NOT_KINDS}
    yield (
        f"A frame without rules takes {alone:.0f} µs, a rule of each kind adds "
        f"{min(each.values()) - alone:.0f} to {max(each.values()) - alone:.0f}, one of each kind "
        f"take {spent['rules']['one_of_each']:.0f} µs together. {result['cores']} cores of "
        f"{result['cpu']}; medians; commit {result['commit']}."
    )


_NOT_KINDS = ("none", "one_of_each")


def guidance(result: dict[str, Any]) -> Iterator[str]:
    """`compare_guidance.py`: AP of each form of auxiliary branch, a figure for each seed."""
    columns = ("auxiliary branch", "AP, each seed", "mean", "AP50, each seed", "mean", "deployed")
    yield from markdown(columns, map(_guidance_row, result["forms"].values()))
    yield ""
    seeds = len(next(iter(result["forms"].values()))["ap"])
    yield (
        f"{result['epochs']} epochs at {result['image_size']} px, {result['images_seen']} images "
        f"seen by each; {seeds} seeds; {result['cores']} cores of {result['cpu']}; commit "
        f"{result['commit']}."
    )


def _guidance_row(form: dict[str, Any]) -> tuple[str, ...]:
    figures = (cell for name in ("ap", "ap50") for cell in _each_and_mean(form[name]))
    return form["title"], *figures, f"{form['parameters_deployed']:,} parameters"


def _each_and_mean(values: list[float]) -> tuple[str, str]:
    each = ", ".join(_share(value) for value in values)
    return each, f"{_share(sum(values) / len(values))}"


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def gradients(result: dict[str, Any]) -> Iterator[str]:
    """`compare_guidance.py`: what branches do to the gradient of each part of the backbone."""
    guided = [form for form in result["forms"].values() if _is_guided(form)]
    columns = [f"{what}, {form['title']}" for form in guided for what in ("share", "same way")]
    parts = guided[0]["gradients_after"]
    yield from markdown(
        ("part of the backbone", *columns),
        (
            (part, *(cell for form in guided for cell in _gradient_cells(form, part)))
            for part in parts
        ),
    )


def _is_guided(form: dict[str, Any]) -> bool:
    return any(part["branches_share"] for part in form["gradients_after"].values())


def _gradient_cells(form: dict[str, Any], part: str) -> tuple[str, str]:
    evidence = form["gradients_after"][part]
    return f"{evidence['branches_share']:.2f}", f"{evidence['branches_and_main']:.2f}"


KINDS: dict[str, Callable[[Any], Iterable[str]]] = {
    "accuracy": accuracy,
    "assignment": assignment,
    "batches": batches,
    "bound": bound,
    "cuda-engine": cuda_engine,
    "gradients": gradients,
    "guidance": guidance,
    "loading": loading,
    "peers": peers,
    "rules": rules,
    "streams": streams,
    "training-step": training_step,
}
"""The tables by the word in their marker."""


if __name__ == "__main__":
    main()
