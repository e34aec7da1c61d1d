"""What every benchmark says about itself, as `sightline bench` says it."""

from pipeline.bench.surroundings import spread, surroundings

__all__ = ["spread", "surroundings"]
