# SPDX-License-Identifier: Apache-2.0
"""Bundles of this tree as versions to update to, good ones and broken ones.

    python tests/benchmarks/versions.py FOLDER

They hold the tree by its path, and what it needs by that of the interpreter that runs this program.
"""

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # this program is called by its path

from model.shipped import find_weights  # noqa: E402
from tests.pipeline.box.box import bundle_of  # noqa: E402

DEPLOY: Final = ROOT / "deploy"
BAD: Final = ("wrong digest", "failing artefact", "crash on start", "never ready")
_VERSION: Final = """\
import sys, time
def main():
    if sys.argv[1] == "serve" and {mode!r} == "crash on start":
        return 1
    if sys.argv[1] == "serve" and {mode!r} == "never ready":
        time.sleep(3600)
    import sightline
    return sightline.main()
"""


def main() -> None:
    """Write two good versions, and one broken in each way."""
    folder = Path(sys.argv[1])
    folder.mkdir()
    for number, mode in enumerate(("good", "good", *BAD)):
        print(make_version(folder, number, mode))


def make_version(folder: Path, number: int, mode: str) -> Path:
    """A bundle of this tree as one version; broken in one way, or not."""
    bundle = folder / f"bundle-{number}"
    paths = f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n"
    files = {"this_version.py": _VERSION.format(mode=mode), "this_tree.pth": paths}
    weights = find_weights(None)
    bundle.mkdir()
    for part in ("weights", "config"):
        (bundle / part).mkdir()
    shutil.copy(weights, bundle / "weights/model.safetensors")
    settings = (DEPLOY / "config/serve.yaml").read_text()
    (bundle / "config/serve.yaml").write_text(settings.replace("@MODEL@", "model.safetensors"))
    shutil.copy(DEPLOY / "config/environment", bundle / "config")
    for name in ("install.sh", "uninstall.sh"):
        shutil.copy(DEPLOY / name, bundle)
    if mode == "failing artefact":
        damage(bundle / "weights/model.safetensors")
    bundle_of(bundle, f"1.{number}", files, with_pip=True)
    if mode == "wrong digest":
        damage(bundle / "weights/model.safetensors")
    return bundle


def damage(path: Path) -> None:
    """Change one byte in the middle of a file's header."""
    content = bytearray(path.read_bytes())
    content[20] ^= 0xFF
    path.write_bytes(content)


if __name__ == "__main__":
    main()
