# SPDX-License-Identifier: Apache-2.0
"""infer: the compiled detector, several requests in flight, one engine per picture shape.

Requests end in any order; what follows puts each stream back into its own. An engine for a new
shape is built beside the ones that run. A frame is acknowledged when its tracks are safe.

Another model is built and warmed for every shape in use beside the one that runs. From one frame to
the next all go to the new one; what the old one has under way it finishes. Should one of the first
results be bad, its frame and all that follow go to the old one, which was kept; it is kept until
the supervisor knows that the new one runs in every trunk.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from model.config import ModelConfig
from model.engines.contract import Engine
from pipeline.errors import PipelineError, StageError
from pipeline.messages import Dropped, Frame, Predictions, timing
from pipeline.models import ModelInUse
from pipeline.stages.lanes import Images, Job, Lane, Runner, Shape, images_of, shape_of
from pipeline.stages.trial import Trial, check_result, close_built, say, warm
from pipeline.transport.control import (
    AboutModel,
    EngineBuilt,
    KeepModel,
    LeaveModel,
    ModelSwapped,
    SwapFailed,
    SwapModel,
)
from pipeline.transport.links import Delivery
from pipeline.transport.pool import SlotGone
from pipeline.transport.ports import Ports
from pipeline.trunk import Trunk

_MOST_LANES = 8  # engines kept ready; each holds its weights and its activations

BuildEngine = Callable[..., Engine]
"""An engine of a `ModelInUse` for pictures of `image_hw`, `batch` looks at a time."""


class Infer:
    """Runs engines over the frames of all streams."""

    def __init__(self, build: BuildEngine, trunk: Trunk) -> None:
        self._build = build
        self._trunk = trunk
        self._model = trunk.model
        """What frames are given to."""
        self._before = trunk.model
        """What ran before it, while it is on trial."""
        self._trial: Trial | None = None
        self._lanes: dict[Shape, Lane] = {}
        self._retiring: list[Runner] = []
        """Runners that get no more frames."""
        self._distrusted: set[int] = set()
        """Models that failed their trial; frames they fail at are looked at again."""
        self._done: deque[tuple[Job, BaseException | None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._builder = ThreadPoolExecutor(1, "build-engine")

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Serve until the supervisor ends the run."""
        try:
            while True:
                delivery = ports.receive("frames", wake=self._wake)
                if delivery is not None:
                    self._accept(ports, delivery)
                with suppress(BlockingIOError):  # not every return is because of it
                    os.eventfd_read(self._wake)
                self._send_results(ports)
                self._advance_trial(ports)
                self._start_requests(ports)
                self._close_retired(ports)
        finally:
            self._close()

    def _accept(self, ports: Ports, delivery: Delivery) -> None:
        message = delivery.message
        if not isinstance(message, Frame):
            ports.send("predictions", message, on_acknowledged=delivery.acknowledge)
            return
        try:
            pixels = ports.pools.pixels(message.image)
        except SlotGone:  # its stream ended, or its decoder died and the next one sends it again
            delivery.acknowledge()
            return
        waiting = self._lane(ports, shape_of(message)).waiting
        waiting.put(message.stream, (delivery, images_of(message, pixels)), message.priority)

    def _lane(self, ports: Ports, shape: Shape) -> Lane:
        """The lane for a shape, made when its first frame comes."""
        if shape not in self._lanes:
            self._make_room(ports)
            self._lanes[shape] = Lane(self._submit(self._model, shape))
        return self._lanes[shape]

    def _submit(self, model: ModelInUse, shape: Shape, *, warmed: bool = False) -> Future[Engine]:
        """Have an engine built beside the ones that run."""
        looks, height, width, _ = shape

        def build() -> Engine:
            engine = self._build(model, image_hw=(height, width), batch=looks)
            return warm(engine, model) if warmed else engine

        engine = self._builder.submit(build)
        engine.add_done_callback(lambda _: self._wake_up())
        return engine

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _make_room(self, ports: Ports) -> None:
        """Give up engines that nobody uses, the oldest first, where there are too many."""
        idle = [shape for shape, lane in self._lanes.items() if lane.idle]
        for shape in idle[: len(self._lanes) - _MOST_LANES + 1]:
            lane = self._lanes.pop(shape)
            if lane.runner is None:
                close_built(lane.building)
            for runner in (lane.runner, lane.before):
                if runner is not None:
                    self._give_back(ports, runner)

    def _start_requests(self, ports: Ports) -> None:
        for lane in self._lanes.values():
            runner = lane.runner or self._first_runner(ports, lane)
            if runner is None:
                continue
            self._drop_late(ports, lane)
            while lane.waiting and (lease := runner.lease()) is not None:
                delivery, images = lane.waiting.take()
                self._start(Job(runner, delivery, images, lease))

    def _first_runner(self, ports: Ports, lane: Lane) -> Runner | None:
        """The engine of a lane, once it is built."""
        if not lane.building.done():
            return None
        error = lane.building.exception()
        if error is not None and self._trial is not None and self._trial.switched:
            self._roll_back(ports, say(error))
            return lane.runner
        lane.runner = self._runner(ports, lane.building.result(), self._model)
        self._report(ports, lane.runner, time.monotonic() - lane.begun_s)
        return lane.runner

    def _runner(self, ports: Ports, engine: Engine, model: ModelInUse) -> Runner:
        return Runner(engine, model, ports.pools, trunk=self._trunk.number)

    def _drop_late(self, ports: Ports, lane: Lane) -> None:
        """Leave tombstones for frames that waited too long, before they cost a request."""
        now_ns = time.monotonic_ns()

        def late(waiting: tuple[Delivery, Images]) -> bool:
            frame = waiting[0].message
            assert isinstance(frame, Frame)
            return frame.expires_ns is not None and now_ns > frame.expires_ns

        for delivery, _ in lane.waiting.remove(late):
            assert isinstance(delivery.message, Frame)
            dropped = Dropped(**timing(delivery.message), cause="late")
            ports.send("predictions", dropped, on_acknowledged=delivery.acknowledge)

    def _start(self, job: Job) -> None:
        def on_done(error: BaseException | None) -> None:
            self._done.append((job, error))
            self._wake_up()

        job.runner.start(job.images, job.lease, on_done)

    def _send_results(self, ports: Ports) -> None:
        while self._done:
            job, error = self._done.popleft()
            job.runner.num_running -= 1
            message = job.delivery.message
            assert isinstance(message, Frame)
            error = error or self._fault_on_trial(job)
            if error is not None:
                self._look_again(ports, job, message, error)
                continue
            ports.send(
                "predictions",
                Predictions(
                    **timing(message),
                    rows=job.lease.slot,
                    suppressed=job.runner.engine.gives == "boxes",
                    canvas_hw=message.canvas_hw,
                    regions=message.regions,
                    part=message.part,
                    model=job.runner.model.number,
                    class_map=job.runner.model.class_map,
                ),
                lease=job.lease,
                on_acknowledged=job.delivery.acknowledge,
            )

    def _fault_on_trial(self, job: Job) -> StageError | None:
        """What is wrong with a result of a model that is on trial."""
        trial = self._trial
        if trial is None or job.runner.model is not trial.model:
            return None
        try:
            check_result(job.lease.array)
        except StageError as fault:
            return fault
        trial.note_good()
        return None

    def _look_again(self, ports: Ports, job: Job, message: Frame, error: BaseException) -> None:
        """Give a frame back to be looked at by the model before.

        Raises:
            StageError: there is none.
        """
        number = job.runner.model.number
        if self._trial is not None and job.runner.model is self._trial.model:
            self._roll_back(ports, f"its first results failed: {say(error)}")
        elif number not in self._distrusted:
            raise StageError(
                f"{message.stream}: frame {message.frame_index}: the engine failed: {error}"
            ) from error
        job.lease.cancel()
        waiting = self._lane(ports, shape_of(message)).waiting
        waiting.put_back(message.stream, (job.delivery, job.images))

    def _advance_trial(self, ports: Ports) -> None:
        """Bring a swap of the model on by what has come true since."""
        while ports.swaps:
            self._follow(ports, ports.swaps.popleft())
        trial = self._trial
        if trial is None:
            return
        if trial.switched:
            if trial.passed:
                _say_passed(ports, trial)
            return
        for shape in self._lanes:
            trial.build(shape)
        if trial.fault:
            self._refuse(ports, trial, trial.fault)
        elif trial.built and all(lane.building.done() for lane in self._lanes.values()):
            self._switch(ports, trial)

    def _follow(self, ports: Ports, order: AboutModel) -> None:
        """Do as the supervisor says of another model.

        Raises:
            StageError: it is to be kept, and has failed here since it was said to be good.
        """
        trial = self._trial
        tried = trial is not None and trial.model.number == order.number
        match order:
            case SwapModel():
                self._begin_trial(ports, order)
            case KeepModel() if trial is not None and tried:
                self._settle(trial)
            case KeepModel(number=number) if number in self._distrusted:
                raise StageError(f"model {number} runs elsewhere, and failed here")
            case LeaveModel() if trial is not None and tried:
                self._leave(ports, trial)
            case _:
                pass  # it is about a model that this trunk never had, or has begun with

    def _leave(self, ports: Ports, trial: Trial) -> None:
        """Give a new model up that failed in another trunk."""
        reason = "it failed elsewhere"
        if trial.switched:
            self._roll_back(ports, reason)
        else:
            self._refuse(ports, trial, reason)

    def _begin_trial(self, ports: Ports, order: SwapModel) -> None:
        config = ModelConfig.model_validate(order.config)
        model = ModelInUse(number=order.number, config=config, class_map=order.class_map)
        if self._trial is not None:
            ports.report(SwapFailed(number=model.number, reason="another model is on trial"))
            return

        def submit(model: ModelInUse, shape: Shape) -> Future[Engine]:
            return self._submit(model, shape, warmed=True)

        self._trial = Trial(model, submit)
        if not self._lanes:  # no frame has come yet: see at least that it runs
            self._trial.build((1, config.image_size, config.image_size, 3))

    def _switch(self, ports: Ports, trial: Trial) -> None:
        """Give every frame from here on to the new model."""
        runners: dict[Shape, Runner] = {}
        for shape in self._lanes:
            built = trial.take(shape)
            try:
                runners[shape] = self._runner(ports, built.result(), trial.model)
            except PipelineError as no_room:
                built.add_done_callback(close_built)
                self._retiring += runners.values()
                self._refuse(ports, trial, say(no_room))
                return
        for shape, lane in self._lanes.items():
            lane.before = lane.runner or self._runner(ports, lane.building.result(), self._model)
            lane.runner = runners[shape]
            self._report(ports, lane.runner, time.monotonic() - trial.begun_s)
        self._before, self._model = self._model, trial.model
        trial.begin(self._wake_up)
        if not self._lanes:
            _say_passed(ports, trial)

    def _refuse(self, ports: Ports, trial: Trial, reason: str) -> None:
        self._trial = None
        trial.close()
        ports.report(SwapFailed(number=trial.model.number, reason=reason))

    def _roll_back(self, ports: Ports, reason: str) -> None:
        """Give every frame from here on to the model before."""
        trial, self._model = self._trial, self._before
        assert trial is not None
        self._distrusted = {trial.model.number}
        for shape, lane in self._lanes.items():
            if lane.runner is not None:
                self._retiring.append(lane.runner)
            else:
                lane.building.add_done_callback(close_built)
            lane.runner, lane.before = lane.before, None
            if lane.runner is None:  # a shape that came during the trial
                lane.building = self._submit(self._model, shape)
        self._refuse(ports, trial, reason)

    def _settle(self, trial: Trial) -> None:
        """Keep the new model and let go of the one before."""
        self._trial = None
        trial.close()
        for lane in self._lanes.values():
            if lane.before is not None:
                self._retiring.append(lane.before)
                lane.before = None

    def _close_retired(self, ports: Ports) -> None:
        for runner in [runner for runner in self._retiring if runner.idle]:
            self._retiring.remove(runner)
            self._give_back(ports, runner)

    def _give_back(self, ports: Ports, runner: Runner) -> None:
        """Close an idle engine before the next is built, and without keeping frames waiting."""
        engine = runner.engine

        def if_cancelled(closing: Future[None]) -> None:
            if closing.cancelled():
                engine.close()

        ports.pools.discard(runner.results.name)
        self._builder.submit(engine.close).add_done_callback(if_cancelled)

    def _report(self, ports: Ports, runner: Runner, build_s: float) -> None:
        engine = runner.engine
        ports.report(
            EngineBuilt(
                name=engine.name,
                precision=engine.precision,
                input_shape=engine.input_shape,
                build_s=build_s,
                model=runner.model.number,
                device=self._trunk.device,
            )
        )

    def _close(self) -> None:
        self._builder.shutdown(cancel_futures=True)
        if self._trial is not None:
            self._trial.close()
        for runner in self._retiring:
            runner.engine.close()
        for lane in self._lanes.values():
            for each in (lane.runner, lane.before):
                if each is not None:
                    each.engine.close()
            if lane.runner is None:
                close_built(lane.building)
        os.close(self._wake)


def _say_passed(ports: Ports, trial: Trial) -> None:
    """Tell once that a new model proved itself here."""
    if not trial.told:
        trial.told = True
        ports.report(ModelSwapped(number=trial.model.number))
