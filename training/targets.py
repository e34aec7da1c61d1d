# SPDX-License-Identifier: Apache-2.0
"""The objects of a batch, as training reads them. Axes: B images, C classes, N objects."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """N objects of B images, packed: an image without objects takes no room."""

    image: Int64[Tensor, " N"]
    """Place of each object's image in the batch."""
    class_id: Int64[Tensor, " N"]
    xyxy: Float32[Tensor, "N 4"]
    """In pixels of the network's input."""
    annotated: Bool[Tensor, "B C"] | None = None
    """Classes each image was annotated for; without it, every class in every image.

    Of the others nothing is learnt from that image: neither that they are there nor that they
    are not.
    """

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        columns = {
            "image": (self.image, (count,), torch.int64),
            "class_id": (self.class_id, (count,), torch.int64),
            "xyxy": (self.xyxy, (count, 4), torch.float32),
        }
        for name, (column, shape, dtype) in columns.items():
            if tuple(column.shape) != shape or column.dtype != dtype:
                raise ValueError(
                    f"{name} must be {dtype} of shape {shape}, "
                    f"got {column.dtype} of shape {tuple(column.shape)}"
                )

    def __len__(self) -> int:
        return len(self.xyxy)

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same objects on a device."""
        annotated = self.annotated
        return Targets(
            image=self.image.to(device, non_blocking=True),
            class_id=self.class_id.to(device, non_blocking=True),
            xyxy=self.xyxy.to(device, non_blocking=True),
            annotated=None if annotated is None else annotated.to(device, non_blocking=True),
        )

    def learnable(self, num_images: int, num_classes: int) -> "Targets":
        """Return the objects of annotated classes, or say which value does not fit the batch."""
        self._check(num_images, num_classes)
        if self.annotated is None:
            return self
        kept = self.annotated[self.image, self.class_id]
        return replace(
            self, image=self.image[kept], class_id=self.class_id[kept], xyxy=self.xyxy[kept]
        )

    def _check(self, num_images: int, num_classes: int) -> None:
        annotated = self.annotated
        if annotated is not None and tuple(annotated.shape) != (num_images, num_classes):
            raise ValueError(
                f"annotated must have shape {(num_images, num_classes)}, "
                f"got {tuple(annotated.shape)}"
            )
        if len(self) == 0:
            return
        for name, column, count in (
            ("image", self.image, num_images),
            ("class_id", self.class_id, num_classes),
        ):
            least, most = (int(end) for end in column.aminmax())
            if least < 0 or most >= count:
                raise ValueError(f"{name} must be in 0..{count - 1}, got {least} to {most}")
        if not self.xyxy.isfinite().all():
            raise ValueError("xyxy must be finite")
