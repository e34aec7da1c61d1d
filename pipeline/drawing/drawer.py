# SPDX-License-Identifier: Apache-2.0
"""Draw tracks on a picture: boxes, labels, and where each object came from.

A thin layer over supervision's annotators, in the luma and the chroma of an NV12 picture
(`pipeline/nv12.py`): OpenCV draws into arrays of one channel or two as into colour. Text is luma
only; its colour is that of the label, and its contrast is in the luma anyway.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import supervision as sv
from jaxtyping import Float, Int, UInt8

from pipeline import nv12
from pipeline.drawing.palette import PALETTE, TEXT_PALETTE, chroma_palette, luma_palette
from pipeline.drawing.style import Style
from pipeline.drawing.tint import reach_px, sides, tint
from pipeline.tracking.tracks import Tracks


class Drawer:
    """Draws the tracks of one stream, frame after frame.

    A track keeps its colour for ever. Tracks without identity (track id 0) are coloured by class
    and leave no trace. What it remembers is bounded: the points of `trace_frames` frames.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        picture_hw: tuple[int, int],
        matrix: nv12.Matrix,
        trace_frames: int = 30,
    ) -> None:
        """Prepare for one stream.

        Args:
            classes: Name of each class id.
            picture_hw: Size that line widths and text are chosen for.
            matrix: Of the pictures' luma and chroma.
            trace_frames: Frames that a trace reaches back; 0 for no traces.
        """
        self._classes = tuple(classes)
        self._style = style = Style.of(picture_hw)
        self._reach_px = reach_px(style.line_px)
        color = luma_palette(PALETTE, matrix)
        self._chroma = chroma_palette(PALETTE, matrix)
        self._boxes = sv.BoxAnnotator(color=color, thickness=style.line_px)
        self._trace_frames = trace_frames
        self._traces = self._trace_annotator(color, style.line_px)
        self._chroma_traces = self._trace_annotator(self._chroma, (style.line_px + 1) // 2)
        self._labels = sv.LabelAnnotator(
            color=color,
            text_color=luma_palette(TEXT_PALETTE, matrix),
            text_scale=style.text_scale,
            text_thickness=style.text_px,
            text_padding=style.padding_px,
            text_position=sv.Position.TOP_LEFT,
        )

    def _trace_annotator(self, color: sv.ColorPalette, thickness_px: int) -> sv.TraceAnnotator:
        return sv.TraceAnnotator(
            color=color,
            position=sv.Position.BOTTOM_CENTER,
            trace_length=self._trace_frames,
            thickness=thickness_px,
        )

    def draw(self, picture: UInt8[np.ndarray, "rows W"], tracks: Tracks) -> None:
        """Draw the tracks of the next frame into `picture` (NV12), in place."""
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
        luma, chroma = nv12.luma(picture), nv12.chroma(picture)
        self._draw_traces(luma, chroma, found, color)
        self._boxes.annotate(luma, found, custom_color_lookup=color)
        tint(chroma, sides(found.xyxy, self._reach_px), self._chroma, np.repeat(color, 4))
        labels = self._draw_labels(luma, found, color)
        tint(chroma, labels, self._chroma, color)

    def _draw_traces(
        self,
        luma: UInt8[np.ndarray, "H W"],
        chroma: UInt8[np.ndarray, "H/2 W/2 2"],
        found: sv.Detections,
        color: Int[np.ndarray, " N"],
    ) -> None:
        if self._trace_frames == 0:
            return
        named = found.tracker_id > 0
        traced = found[named]
        halved = sv.Detections(xyxy=traced.xyxy / 2, tracker_id=traced.tracker_id)
        self._traces.annotate(luma, traced, custom_color_lookup=color[named])
        self._chroma_traces.annotate(chroma, halved, custom_color_lookup=color[named])

    def _draw_labels(
        self,
        luma: UInt8[np.ndarray, "H W"],
        found: sv.Detections,
        color: Int[np.ndarray, " N"],
    ) -> Int[np.ndarray, "N 4"]:
        """Draw the labels and return where they lie."""
        texts = [
            self._text(int(track_id), int(class_id), float(score))
            for track_id, class_id, score in zip(
                found.tracker_id, found.class_id, found.confidence, strict=True
            )
        ]
        # The annotator hangs a label on the top left corner of a box, wherever that is: give it
        # boxes whose corner keeps the label inside the picture.
        placed = self._label_xyxy(luma.shape, found.xyxy, texts)
        anchors = sv.Detections(xyxy=placed[:, [0, 3, 0, 3]], class_id=found.class_id)
        self._labels.annotate(luma, anchors, labels=texts, custom_color_lookup=color)
        return placed

    def _text(self, track_id: int, class_id: int, score: float) -> str:
        known = 0 <= class_id < len(self._classes)
        name = self._classes[class_id] if known else f"class {class_id}"
        return f"#{track_id} {name} {score:.2f}" if track_id > 0 else f"{name} {score:.2f}"

    def _label_xyxy(
        self, picture_hw: tuple[int, ...], xyxy: Float[np.ndarray, "N 4"], texts: list[str]
    ) -> Int[np.ndarray, "N 4"]:
        """Corners of each label: on its box, or inside it at the top of the picture."""
        height, width = picture_hw
        sizes = [
            cv2.getTextSize(
                text, cv2.FONT_HERSHEY_SIMPLEX, self._style.text_scale, self._style.text_px
            )[0]
            for text in texts
        ]
        label_wh = np.array(sizes, int).reshape(-1, 2) + 2 * self._style.padding_px
        left = np.floor(xyxy[:, 0]).astype(int) - self._style.line_px // 2
        top = np.floor(xyxy[:, 1]).astype(int)
        left = np.clip(left, 0, np.maximum(width - 1 - label_wh[:, 0], 0))
        bottom = np.where(top < label_wh[:, 1], np.maximum(top, 0) + label_wh[:, 1], top)
        bottom = np.minimum(bottom, height - 1)
        return np.stack((left, bottom - label_wh[:, 1], left + label_wh[:, 0], bottom), axis=1)
