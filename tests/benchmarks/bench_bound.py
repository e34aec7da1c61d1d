"""The pipeline against its bound on a 1080p clip, for several detectors, without and with video.

    python tests/benchmarks/bench_bound.py --weights t.safetensors s.safetensors \\
        --clip people.mp4 > tests/benchmarks/results/bound.json

What `sightline bench` measures, once a detector and output. Large detectors take fewer frames.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from clips import scaled_clip

from model.card import read_card
from model.config import ModelConfig
from pipeline.bench.share import measure
from pipeline.config import OutputConfig, PipelineConfig, SourceConfig
from pipeline.decoding.inputs import find_sources

FRAMES = {"T": 400, "S": 250, "M": 150, "C": 120}


def main() -> None:
    """Measure every detector with every output and print a JSON list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--clip", type=Path, required=True, help="a real clip to enlarge")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = scaled_clip(
            options.clip,
            folder / "clip.mp4",
            width=1920,
            height=1080,
            num_frames=max(FRAMES.values()),
        )
        [source] = find_sources([str(clip)])
        for weights in options.weights:
            for save_video in (False, True):
                config = PipelineConfig(
                    model=ModelConfig(weights=weights),
                    source=SourceConfig(limit=FRAMES[read_card(weights).scale]),
                    output=OutputConfig(directory=folder / "out", save_video=save_video),
                )
                results.append({"weights": weights.name} | measure(config, source, options.runs))
                share = results[-1]["pipeline"]["share_of_bound"]["median"]
                print(f"{weights.name}, {results[-1]['outputs']}: {share:.0%}", file=sys.stderr)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
