# SPDX-License-Identifier: Apache-2.0
"""What a new version compiles before it is started is what it will run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.cuda.plan import GpuWanted
from pipeline.box import readying
from tests.pipeline.scenes import make_card_file


class Tried:
    """An engine that is asked once."""

    input_shape = (1, 64, 96, 3)

    def __init__(self) -> None:
        self.num_asked = 0
        self.closed = False

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.num_asked += 1
        return np.zeros(len(images))

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("takes", ["canvases", "coded"])
def test_the_engine_that_is_compiled_is_the_one_that_will_run(
    takes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[dict[str, Any], Tried]] = []

    def build_engine(_: object, **asked: Any) -> Tried:
        built.append((asked, Tried()))
        return built[-1][1]

    monkeypatch.setattr(readying, "build_engine", build_engine)
    chosen = "cuda" if takes == "coded" else "torch"
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: chosen)
    settings = tmp_path / "serve.yaml"
    weights = make_card_file(tmp_path / "card.safetensors")
    settings.write_text(f"model: {{weights: {weights}}}\ngpu: {{batch_sizes: [1, 4]}}\n")
    assert readying.warm(settings, (), [(1, 64, 96)]) == [(1, 64, 96)]
    ((asked, engine),) = built
    gpu = asked.pop("gpu", None)
    assert asked == {"image_hw": (64, 96), "batch": 1}
    assert (engine.num_asked, engine.closed) == (1, True)
    if takes == "canvases":
        assert gpu is None
    else:
        assert isinstance(gpu, GpuWanted)
        assert gpu.batch_sizes == (1, 4)
