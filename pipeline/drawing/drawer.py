# SPDX-License-Identifier: Apache-2.0
"""Draw tracks on a picture: boxes, labels, and where each object came from.

A thin layer over supervision's annotators. Axes: H and W height and width of the picture.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import supervision as sv
from jaxtyping import Float, Int, UInt8

from pipeline.drawing.palette import PALETTE, TEXT_PALETTE
from pipeline.drawing.style import Style
from pipeline.tracking.tracks import Tracks


class Drawer:
    """Draws the tracks of one stream, frame after frame.

    A track keeps its colour for ever. Tracks without identity (track id 0) are coloured by class
    and leave no trace. What it remembers is bounded: the points of `trace_frames` frames.
    """

    def __init__(
        self, classes: Sequence[str], *, picture_hw: tuple[int, int], trace_frames: int = 30
    ) -> None:
        """Prepare for one stream.

        Args:
            classes: Name of each class id.
            picture_hw: Size that line widths and text are chosen for.
            trace_frames: Frames that a trace reaches back; 0 for no traces.
        """
        self._classes = tuple(classes)
        self._style = style = Style.of(picture_hw)
        self._boxes = sv.BoxAnnotator(color=PALETTE, thickness=style.line_px)
        self._traces = sv.TraceAnnotator(
            color=PALETTE,
            position=sv.Position.BOTTOM_CENTER,
            trace_length=trace_frames,
            thickness=style.line_px,
        )
        self._trace_frames = trace_frames
        self._labels = sv.LabelAnnotator(
            color=PALETTE,
            text_color=TEXT_PALETTE,
            text_scale=style.text_scale,
            text_thickness=style.text_px,
            text_padding=style.padding_px,
            text_position=sv.Position.TOP_LEFT,
        )

    def draw(self, picture: UInt8[np.ndarray, "H W 3"], tracks: Tracks) -> None:
        """Draw the tracks of the next frame into `picture` (BGR), in place."""
        if not (picture.flags.c_contiguous and picture.flags.writeable):
            raise ValueError("picture must be contiguous and writeable, to be drawn on in place")
        order = np.argsort(tracks.score, kind="stable")  # the best is drawn last, on top
        found = sv.Detections(
            xyxy=tracks.xyxy[order],
            confidence=tracks.score[order],
            class_id=tracks.class_id[order],
            tracker_id=tracks.track_id[order],
        )
        color = np.where(found.tracker_id > 0, found.tracker_id, found.class_id)
        self._draw_traces(picture, found, color)
        self._boxes.annotate(picture, found, custom_color_lookup=color)
        self._draw_labels(picture, found, color)

    def _draw_traces(
        self,
        picture: UInt8[np.ndarray, "H W 3"],
        found: sv.Detections,
        color: Int[np.ndarray, " N"],
    ) -> None:
        if self._trace_frames == 0:
            return
        named = found.tracker_id > 0
        self._traces.annotate(picture, found[named], custom_color_lookup=color[named])

    def _draw_labels(
        self,
        picture: UInt8[np.ndarray, "H W 3"],
        found: sv.Detections,
        color: Int[np.ndarray, " N"],
    ) -> None:
        texts = [
            self._text(int(track_id), int(class_id), float(score))
            for track_id, class_id, score in zip(
                found.tracker_id, found.class_id, found.confidence, strict=True
            )
        ]
        # The annotator hangs a label on the top left corner of a box, wherever that is: give it
        # boxes whose corner keeps the label inside the picture.
        corners = self._label_corners(picture.shape[:2], found.xyxy, texts)
        anchors = sv.Detections(xyxy=np.hstack((corners, corners)), class_id=found.class_id)
        self._labels.annotate(picture, anchors, labels=texts, custom_color_lookup=color)

    def _text(self, track_id: int, class_id: int, score: float) -> str:
        known = 0 <= class_id < len(self._classes)
        name = self._classes[class_id] if known else f"class {class_id}"
        return f"#{track_id} {name} {score:.2f}" if track_id > 0 else f"{name} {score:.2f}"

    def _label_corners(
        self, picture_hw: tuple[int, ...], xyxy: Float[np.ndarray, "N 4"], texts: list[str]
    ) -> Float[np.ndarray, "N 2"]:
        """Bottom left corner of each label: on its box, or inside it at the top of the picture."""
        height, width = picture_hw
        sizes = [
            cv2.getTextSize(
                text, cv2.FONT_HERSHEY_SIMPLEX, self._style.text_scale, self._style.text_px
            )[0]
            for text in texts
        ]
        label_wh = np.array(sizes, np.float32).reshape(-1, 2) + 2 * self._style.padding_px
        left = np.floor(xyxy[:, 0]) - self._style.line_px // 2
        top = np.floor(xyxy[:, 1])
        left = np.clip(left, 0, np.maximum(width - 1 - label_wh[:, 0], 0))
        bottom = np.where(top < label_wh[:, 1], np.maximum(top, 0) + label_wh[:, 1], top)
        return np.stack((left, np.minimum(bottom, height - 1)), axis=1)
