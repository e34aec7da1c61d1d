# SPDX-License-Identifier: Apache-2.0
"""As many sizes of batch as a device has memory for.

Where memory is lacking, the largest size is given up and the rest is built anew: the memory of a
slot follows its largest batch, so that is what helps most.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.cuda.batchslot import BatchSlot, Limits, SlotPlan
from model.cuda.device import Device, OutOfDeviceMemory
from model.cuda.hostmemory import HostMemory
from model.cuda.plan import EnginePlan, Network, NetworkPlan
from model.engines.direct import first_line
from model.errors import EngineError

logger = logging.getLogger(__name__)

CompileNetwork = Callable[[NetworkPlan], Network]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was built."""

    slots: tuple[BatchSlot, ...]
    sizes: tuple[int, ...]
    """Of batches, rising."""
    how: str
    """The network is run."""


class Fitting:
    """Builds the slots of one engine."""

    def __init__(
        self,
        plan: EnginePlan,
        num_classes: int,
        device: Device,
        compile_network: CompileNetwork,
        host_memory: HostMemory,
    ) -> None:
        self._plan = plan
        self._num_classes = num_classes
        self._device = device
        self._compile_network = compile_network
        self._host_memory = host_memory
        self._networks: dict[int, Network] = {}

    def fit(self) -> Fitted:
        """Build for all sizes, or for those there is memory for.

        Raises:
            EngineError: there is not enough for any that holds the looks of a frame.
        """
        sizes, lacking = self._plan.gpu.batch_sizes, ""
        while sizes and sizes[-1] >= self._plan.looks:
            try:
                slots = self._build(sizes)
            except OutOfDeviceMemory as failure:
                lacking = str(failure)
            else:
                self._warn(sizes, lacking)
                return Fitted(slots, sizes, self._networks[sizes[0]].how)
            self._networks.pop(sizes[-1], None)
            sizes = sizes[:-1]
        height, width = self._plan.canvas_hw
        raise EngineError(
            f"{self._device.name}: no memory for a batch of {self._plan.looks} on {width}x{height} "
            f"({lacking}); lower gpu.arena_mib, gpu.in_flight or model.image_size"
        )

    def _build(self, sizes: tuple[int, ...]) -> tuple[BatchSlot, ...]:
        plan = self._plan
        slot_plan = SlotPlan(
            canvas_hw=plan.canvas_hw,
            most_looks=sizes[-1],
            arena_bytes=plan.gpu.arena_mib << 20,
            number_format=plan.number_format,
            num_classes=self._num_classes,
            suppression=plan.gpu.suppression,
        )
        limits = self._limits()
        slots = tuple(
            BatchSlot(self._device, slot_plan, limits, self._host_memory)
            for _ in range(plan.gpu.in_flight)
        )
        for size in reversed(sizes):
            network = self._network(size)
            for slot in slots:
                slot.capture(size, network)
        return slots

    def _limits(self) -> Limits:
        min_score = self._device.empty((), torch.float32)
        min_score.fill_(self._plan.gpu.suppression.min_score)
        class_ids = self._plan.gpu.class_ids
        wanted = torch.full((self._num_classes,), class_ids is None)
        for class_id in class_ids or ():
            if class_id < self._num_classes:  # another number is no class, so it is never found
                wanted[class_id] = True
        on_device = self._device.empty((self._num_classes,), torch.bool)
        on_device.copy_(wanted)
        return Limits(min_score, on_device)

    def _network(self, size: int) -> Network:
        """The network for a size, compiled once, however often the slots are built."""
        if size not in self._networks:
            plan = NetworkPlan(
                weights=self._plan.weights,
                canvas_hw=self._plan.canvas_hw,
                batch=size,
                number_format=self._plan.number_format,
                how=self._plan.gpu.how,
                device=self._device.index,
            )
            try:
                self._networks[size] = self._compile_network(plan)
            except torch.OutOfMemoryError as failure:
                raise OutOfDeviceMemory(first_line(failure)) from failure
        return self._networks[size]

    def _warn(self, sizes: tuple[int, ...], lacking: str) -> None:
        left_out = self._plan.gpu.batch_sizes[len(sizes) :]
        if left_out:
            logger.warning(
                "%s: no memory for batches of %s (%s); the largest is now %d",
                self._device.name,
                ", ".join(map(str, left_out)),
                lacking,
                sizes[-1],
            )
