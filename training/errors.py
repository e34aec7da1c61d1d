# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a training, beside its data and its settings."""

from model.errors import ModelError


class TrainingFailed(ModelError):  # noqa: N818 - it says what happened
    """A training that began cannot go on: what was written so far is kept."""

    exit_code = 1
