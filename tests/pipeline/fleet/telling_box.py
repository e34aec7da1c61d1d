# SPDX-License-Identifier: Apache-2.0
"""A box as a process: tells numbered events, and says of each that it is kept.

    python tests/pipeline/fleet/telling_box.py FOLDER NAME ADDRESS FIRST RATE

It tells until a line comes on its standard input, then ends once nothing waits for the collector.
"""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # called by its path

from pipeline.telling.teller import Teller
from tests.pipeline.telling.builders import make_config, make_event

LONGEST_PAUSE_S = 2.0


def main() -> None:
    """Tell events until told to end, then wait until they are delivered."""
    folder, name, address = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    first, rate = int(sys.argv[4]), float(sys.argv[5])
    fleet = {
        "address": address,
        "key": folder / f"keys/{name}.key",
        "collector_key": folder / "keys/collector.pub",
        "health_s": 1.0,
    }
    outbox = {"longest_pause_s": LONGEST_PAUSE_S, "max_messages": 10_000_000}
    teller = Teller(make_config(folder / name, outbox=outbox, fleet=fleet))
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ending.set()), daemon=True).start()
    began_s, number = time.monotonic(), first
    while not ending.wait(max(0.0, began_s + (number - first) / rate - time.monotonic())):
        teller.tell(make_event(number))
        assert teller.flush(60)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        number += 1
    while teller.statistics().receivers["fleet"].waiting:
        time.sleep(0.05)
    teller.close()


if __name__ == "__main__":
    main()
