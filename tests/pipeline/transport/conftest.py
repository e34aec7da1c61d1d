import tempfile
import uuid
from collections.abc import Iterator

import pytest

from tests.pipeline.transport.rig import Rig


@pytest.fixture(params=["inproc", "ipc"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Links between threads, and links between processes; socket paths must be short."""
    with tempfile.TemporaryDirectory(prefix="sl") as folder:
        base = f"inproc://{uuid.uuid4().hex}" if request.param == "inproc" else f"ipc://{folder}"
        rig = Rig(base)
        yield rig
        rig.end()
