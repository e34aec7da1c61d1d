# SPDX-License-Identifier: Apache-2.0
"""For preprocess: where the images of one stream lie on their way to the engine.

Their slots are in the host's memory, or on the GPU for pictures that it decoded and that are there
still. A stream has slots of one kind and one size at a time, and others from the first frame on
that needs others.
"""

import logging
from typing import Final

import numpy as np

from model.cuda.device import Device, OutOfDeviceMemory
from pipeline.stages.imaging import Image
from pipeline.transport.devicepool import DevicePool
from pipeline.transport.pool import Claim, Pool
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)

_UINT8: Final = np.dtype(np.uint8)


class ImageSlots:
    """Gives slots to the images of one stream."""

    def __init__(self, window: int) -> None:
        """Set up for so many images on their way."""
        self._window = window
        self._pool: Pool | DevicePool | None = None
        self._too_large: tuple[int, ...] | None = None
        """Shape of the last slots that the GPU had no room for."""

    @property
    def begun(self) -> bool:
        """Whether there was an image."""
        return self._pool is not None

    @property
    def has_room(self) -> bool:
        """Whether the next image would not wait, if it is like the last."""
        return self._pool is None or self._pool.num_held < self._pool.num_slots

    def put(self, ports: Ports, stream: str, image: Image) -> Claim:
        """Have an image in a slot, waiting until one is free."""
        if image.surface is not None:
            on_device = self._on_device(ports, stream, image.shape, image.surface.device)
            if on_device is not None:
                lease = ports.lease(on_device)
                assert image.coded is not None
                lease.written(image.surface.copy_to(image.coded, lease.address))
                return lease
        lent = ports.lease(self._on_host(ports, stream, image.shape))
        image.write(lent.array)
        return lent

    def _on_host(self, ports: Ports, stream: str, shape: tuple[int, ...]) -> Pool:
        pool = self._pool
        if not isinstance(pool, Pool) or pool.shape != shape:
            give_up(ports, pool)
            pool = self._pool = ports.pools.create(f"{stream}/images", shape, _UINT8, self._window)
        return pool

    def _on_device(
        self, ports: Ports, stream: str, shape: tuple[int, ...], device: Device
    ) -> DevicePool | None:
        """The slots on a GPU; None where it has no room for them."""
        pool = self._pool
        if isinstance(pool, DevicePool) and pool.shape == shape:
            return pool
        if shape == self._too_large:
            return None
        (num_bytes,) = shape
        give_up(ports, pool)
        self._pool = None
        try:
            self._pool = ports.pools.gpu.create(
                device, f"{stream}/surfaces", num_bytes, self._window
            )
        except OutOfDeviceMemory as lack:
            self._too_large = shape
            logger.warning(
                "%s: no room on the GPU for %d pictures of %.1f MiB, so they go by the host's "
                "memory, copied twice more (%s); use fewer streams or a smaller window",
                *(stream, self._window, num_bytes / 2**20, lack),
            )
            return None
        logger.info("%s: pictures stay on the GPU that decodes them (%s)", stream, device.name)
        return self._pool


def give_up(ports: Ports, pool: Pool | DevicePool | None) -> None:
    """Let the slots of the shape before be read, then give their memory back.

    Without it the pools of a folder of photographs, each of its own size, would pile up.
    """
    if pool is None:
        return
    while pool.num_held:
        ports.wait_for(pool)
    ports.pools.discard(pool.name)
