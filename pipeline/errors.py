# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in a pipeline: one leaf per thing the caller can do."""


class PipelineError(Exception):
    """Root of everything the pipeline reports to its user."""


class SourceError(PipelineError):
    """A source cannot be read."""


class SourceUnreadable(SourceError):  # noqa: N818 - the name says what is so
    """The input is not what it should be; only its owner can mend it."""


class SourceForbidden(SourceUnreadable):
    """The source wants another user name or password."""


class SourceLost(SourceError):  # noqa: N818 - the name says what happened
    """A live source went away; trying again may help."""


class DecoderLost(SourceLost):
    """What decoded a live source failed, and not the source; another decoder may do."""


class SinkError(PipelineError):
    """An output cannot be written."""


class StageError(PipelineError):
    """A stage stopped on an error of its own."""


class GraphError(PipelineError):
    """The graph does not hold together."""


class CameraRefused(PipelineError):  # noqa: N818 - a state of the call, not a failure on the way
    """A camera cannot be added, changed or removed as asked."""


class ServiceFailed(PipelineError):  # noqa: N818 - the name says what happened
    """A service could not go on, though its settings are right."""

    exit_code = 1


class OutputRefused(PipelineError):  # noqa: N818 - a state of the call, not a failure on the way
    """Outputs cannot be made where the call wants them; choose another place."""


class BundleRefused(PipelineError):  # noqa: N818 - a state of the call, not a failure on the way
    """A bundle is not what it should be: bring another, or a whole copy of it."""


class UpdateFailed(PipelineError):  # noqa: N818 - the name says what happened
    """An update did not come to its end; the version before runs on."""

    exit_code = 1
