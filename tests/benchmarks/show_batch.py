"""One training batch as a PNG, to be looked at: samples with their boxes.

python tests/benchmarks/show_batch.py ../shared/street/data.yaml batch.png --set mosaic=1
"""

import argparse
from pathlib import Path

import cv2

from model.config import load_settings
from training.augmentation import Augmentation
from training.contact_sheet import contact_sheet
from training.datasets import read_dataset
from training.loading import Loading, TrainingLoader
from training.sampling import Position, Sampling


def main() -> None:
    """Make the first batch of an epoch and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epoch", type=int, default=0, help="of 100; the last ones are closed")
    parser.add_argument("--set", action="append", default=[], help="of the augmentation")
    options = parser.parse_args()
    dataset = read_dataset(options.data)
    loader = TrainingLoader(
        dataset[options.split],
        Sampling(image_size=options.image_size, batch_size=options.batch_size),
        load_settings(Augmentation, None, options.set),
        Loading(workers=0),
    )
    batch = next(loader.batches(Position(epoch=options.epoch), epochs=100))
    sheet = contact_sheet(batch, dataset.classes)
    cv2.imwrite(str(options.output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f"{options.output}: {len(batch.paths)} samples, {len(batch.objects)} objects")


if __name__ == "__main__":
    main()
