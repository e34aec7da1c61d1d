# SPDX-License-Identifier: Apache-2.0
"""Which files a run writes, checked before anything starts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import OutputConfig
from pipeline.decoding.inputs import Source
from pipeline.errors import OutputRefused

SUMMARY = "summary.json"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files of a run: `<name>.mot.txt`, `<name>.jsonl`, `<name>.mp4` and `summary.json`."""

    config: OutputConfig

    @property
    def summary(self) -> Path:
        """The run's summary."""
        return self.config.directory / SUMMARY

    def mot(self, source: Source) -> Path:
        """Tracks as MOT text."""
        return self.config.directory / f"{source.name}.mot.txt"

    def jsonl(self, source: Source) -> Path:
        """Tracks as JSON lines."""
        return self.config.directory / f"{source.name}.jsonl"

    def video(self, source: Source) -> Path:
        """Annotated pictures: a video, or for one image a picture of its kind."""
        suffix = ".mp4"
        if source.kind == "image":
            suffix = ".png" if Path(source.location).suffix.lower() == ".png" else ".jpg"
        return self.config.directory / f"{source.name}{suffix}"

    def of(self, source: Source) -> tuple[Path, ...]:
        """All files of a source."""
        texts = (self.mot(source), self.jsonl(source))
        return (*texts, self.video(source)) if self.config.save_video else texts

    def prepare(self, sources: Sequence[Source]) -> None:
        """Make the folder and see that nothing stands in the way.

        Raises:
            OutputRefused: the folder cannot be made, or files exist and may not be replaced.
        """
        self._refuse_inputs(sources)
        try:
            self.config.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputRefused(
                f"{self.config.directory}: cannot make the output folder "
                f"({(error.strerror or str(error)).lower()}); choose another with --output"
            ) from error
        if not self.config.overwrite:
            _refuse_existing(path for source in sources for path in self.of(source))

    def _refuse_inputs(self, sources: Sequence[Source]) -> None:
        """An output must not replace what is being read."""
        inputs = {Path(s.location).resolve() for s in sources if s.kind in ("file", "image")}
        for source in sources:
            for path in self.of(source):
                if path.resolve() in inputs:
                    raise OutputRefused(
                        f"{path}: would replace an input; choose another folder with --output"
                    )


def _refuse_existing(paths: Iterable[Path]) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        more = f" and {len(existing) - _SHOWN} more" if len(existing) > _SHOWN else ""
        raise OutputRefused(
            f"{', '.join(existing[:_SHOWN])}{more}: exists; "
            "pass --overwrite to replace, or choose another folder with --output"
        )
