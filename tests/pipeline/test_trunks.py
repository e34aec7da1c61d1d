"""Which trunk a stream is given to, and which there are."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.config import ModelConfig
from model.cuda.plan import GpuWanted
from model.errors import ConfigError
from pipeline.branch import Branch
from pipeline.config import GpuConfig, PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.engines import ForCoded, devices_here
from pipeline.errors import StageError
from pipeline.graph import Plan, tracker_floor
from pipeline.host import worker_name
from pipeline.metrics import CounterTable
from pipeline.models import ModelInUse
from pipeline.outputs import Outputs
from pipeline.stages.infer import Infer
from pipeline.streams import StreamState
from pipeline.swapping import Swapping
from pipeline.transport.control import (
    KeepModel,
    LeaveModel,
    SwapModel,
)
from pipeline.trunk import Trunk
from pipeline.trunks import Trunks
from tests.pipeline.scenes import CLASSES, build_squares, make_card_file

MODEL = ModelInUse(config=ModelConfig())


def begun(name: str, trunk: int, *, live: bool = True) -> StreamState:
    source = Source(name=name, kind="rtsp" if live else "file", location=name)
    branch = Branch(stream=name, source=source, row=0, trunk=trunk)
    table = CounterTable()
    table.claim(name)
    return StreamState(branch=branch, counters=table[name], started_s=1.0)


def spread(trunks: Trunks, kinds: str, states: list[StreamState] | None = None) -> list[int]:
    """Where streams go that begin one after another: `c` is a camera, `f` a file."""
    states = [] if states is None else states
    for number, kind in enumerate(kinds, len(states)):
        stream = begun(str(number), 0, live=kind == "c")
        at = trunks.least_busy(stream.source, states)
        states.append(begun(str(number), at, live=kind == "c"))
    return [state.branch.trunk for state in states]


@pytest.mark.parametrize("kinds", ["cccccccc", "ffffffff", "cccfcfff", "cfcfcfcf"])
def test_streams_are_spread_evenly_and_so_are_those_of_each_kind(kinds: str) -> None:
    at = spread(Trunks((0, 1)), kinds)
    for kind in set(kinds):
        places = [trunk for trunk, each in zip(at, kinds, strict=True) if each == kind]
        assert abs(places.count(0) - places.count(1)) <= 1
    assert at.count(0) == at.count(1)


def test_a_place_that_is_free_is_taken_and_a_device_that_is_given_up_gets_no_stream() -> None:
    trunks = Trunks((0, 1, 3))
    states: list[StreamState] = []
    assert spread(trunks, "cccccc", states) == [0, 1, 2, 0, 1, 2]
    states[1].ended_s = 2.0
    remaining = [state for state in states if state.is_running]
    assert spread(trunks, "c", remaining)[-1] == 1
    trunks.give_up(1, "it died")
    assert trunks.working == (0, 2)
    assert spread(trunks, "cccc") == [0, 2, 0, 2]
    assert [state.device for state in trunks.states(states)] == [0, 1, 3]
    assert [state.streams for state in trunks.states(states)] == [("0", "3"), ("4",), ("2", "5")]
    assert [state.fault for state in trunks.states(states)] == ["", "it died", ""]


def test_where_there_is_one_device_nothing_is_named_after_it() -> None:
    assert Trunks((3,)).named(0, "it died") == "it died"
    assert Trunks((1, 3)).named(1, "it died") == "device 3: it died"
    assert [worker_name("infer", trunk=number) for number in (0, 1)] == ["infer", "infer#1"]


NO_GPU = PipelineConfig()


@pytest.mark.parametrize(
    ("named", "there", "wanted"),
    [((), 2, (0, 1)), ((1,), 2, (1,)), ((3, 1), 4, (3, 1)), ((), 0, (0,))],
)
def test_every_gpu_is_used_unless_some_are_named(
    named: tuple[int, ...], there: int, wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.num_devices", lambda: there)
    config = PipelineConfig(gpu=GpuConfig(devices=named))
    assert devices_here(config, "coded") == wanted


def test_without_an_engine_for_gpus_there_is_one_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engines.num_devices", lambda: 4)
    assert devices_here(NO_GPU, "canvases") == (0,)
    named = PipelineConfig(gpu=GpuConfig(devices=(2, 3)))
    assert devices_here(named, "canvases") == (2,)  # that may decode


def test_a_gpu_that_is_not_there_or_named_twice_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.engines.num_devices", lambda: 2)
    config = PipelineConfig(gpu=GpuConfig(devices=(0, 2)))
    with pytest.raises(ConfigError) as refused:
        devices_here(config, "coded")
    assert str(refused.value) == "gpu.devices: there are 2 GPUs here, numbered from 0, got 2"
    with pytest.raises(ValidationError, match=r"devices must differ, got \[1, 1\]"):
        GpuConfig(devices=(1, 1))


def test_an_engine_is_built_on_the_device_of_its_trunk() -> None:
    asked: list[int] = []

    def build(*_: ModelConfig, gpu: GpuWanted, **_shape: Any) -> Any:
        asked.append(gpu.device)

    for device in (0, 5):
        builder = ForCoded(build, GpuConfig(), tracker_floor(NO_GPU), None, device)
        builder(MODEL, image_hw=(32, 64), batch=1)
    assert asked == [0, 5]


@pytest.fixture
def swapping(card_file: Path, tmp_path: Path) -> Swapping:
    config = PipelineConfig(model=ModelConfig(weights=card_file, image_size=160))
    plan = Plan(
        config=config,
        classes=CLASSES,
        class_ids=None,
        floor=tracker_floor(config),
        build_engine=build_squares,
        outputs=Outputs(config.output),
        devices=(0, 1),
    )
    swapping = Swapping(plan)
    swapping.ask(make_card_file(tmp_path / "next.safetensors"), ())
    (order,) = swapping.orders((0, 1))
    assert isinstance(order, SwapModel)
    assert list(swapping.orders((0, 1))) == []
    return swapping


def test_a_model_is_kept_when_it_has_proved_itself_in_every_trunk(swapping: Swapping) -> None:
    swapping.on_passed(1, 1)
    swapping.on_passed(1, 1)
    assert swapping.in_use.number == 0
    assert list(swapping.orders((0, 1))) == []
    swapping.on_passed(0, 1)
    assert swapping.in_use.number == 1
    assert list(swapping.orders((0, 1))) == [KeepModel(number=1)]
    assert list(swapping.orders((0, 1))) == []


@pytest.mark.parametrize("end", ["failure", "death"])
@pytest.mark.parametrize("passed", [(), (1,)])
def test_a_model_that_fails_in_one_trunk_is_left_in_all(
    swapping: Swapping, tmp_path: Path, end: str, passed: tuple[int, ...]
) -> None:
    for trunk in passed:
        swapping.on_passed(trunk, 1)
    if end == "failure":
        swapping.on_failed(1, "it broke")
    else:
        swapping.on_trunk_lost("it died")
    assert swapping.in_use.number == 0
    again = swapping.ask(make_card_file(tmp_path / "other.safetensors"), ())
    orders = list(swapping.orders((0, 1)))
    assert orders[0] == LeaveModel(number=1)
    assert isinstance(orders[1], SwapModel)
    swapping.on_passed(0, 1)  # late, and of the one that was left
    swapping.on_failed(1, "it broke")
    assert not again.done()
    for trunk in (0, 1):
        swapping.on_passed(trunk, 2)
    assert again.result(0).number == 2


def test_a_trunk_that_went_back_by_itself_does_not_stay_behind_the_others() -> None:
    """It failed after it had proved itself, as the last other one did so too."""
    infer = Infer(build_squares, Trunk(model=MODEL))
    infer._distrusted = {3}
    ports: Any = None
    with pytest.raises(StageError, match="model 3 runs elsewhere, and failed here"):
        infer._follow(ports, KeepModel(number=3))
    infer._follow(ports, KeepModel(number=4))
    infer._close()
