# SPDX-License-Identifier: Apache-2.0
"""What is decided before a training: one frozen tree, the published recipe by default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from model.config import Settings
from model.scales import ScaleName
from training.augmentation import Augmentation
from training.auxiliary import FormName
from training.criterion import LossConfig
from training.loading import Loading
from training.sampling import Sampling

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
TrainingPrecision = Literal["auto", "f32", "bf16"]


class Sgd(Settings):
    """Gradient descent with Nesterov's momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01
    momentum: Share = 0.937
    decay: NotNegative = 5e-4
    """Of convolutions' weights, for a nominal batch."""
    first_bias_lr: NotNegative = 0.1
    """What the rate of biases warms up from; every other one does from 0."""
    first_momentum: Share = 0.8


class AdamW(Settings):
    """Adam with decoupled decay."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    momentum: Share = 0.9
    second_momentum: Share = 0.999
    decay: NotNegative = 0.05
    """Of convolutions' weights, for a nominal batch."""
    first_bias_lr: NotNegative = 0.0
    """What the rate of biases warms up from; every other one does from 0."""
    first_momentum: Share = 0.9


class WarmUp(Settings):
    """How training begins."""

    epochs: NotNegative = 3.0
    min_batches: Annotated[int, Field(ge=0)] = 100


class Averaging(Settings):
    """The average of weights that is evaluated and deployed."""

    decay: Share = 0.9999
    ramp: Positive = 2000.0
    """Updates after which the decay has come 63 % of its way from 0."""


class Recipe(Settings):
    """Everything that weights follow from, beside the data."""

    model: ScaleName | Path = "T"
    """A size, to train from random weights, or a Sightline weights file to go on from."""
    form: FormName | Literal["released"] = "released"
    """The auxiliary branches: those each size was released with, a row of the paper's table 4, or
    `none`, the detector alone."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Only these classes of the data set; objects of others become background."""
    epochs: Count = 500
    sampling: Sampling = Sampling()
    augmentation: Augmentation = Augmentation()
    loading: Loading = Loading()
    loss: LossConfig = LossConfig()
    optimiser: Annotated[Sgd | AdamW, Field(discriminator="kind")] = Sgd()
    last_lr: Positive = 0.01
    """What the learning rate falls to in a straight line, as a share of the first."""
    warm_up: WarmUp = WarmUp()
    averaging: Averaging = Averaging()
    nominal_batch: Count = 64
    """Images of an update; smaller batches add up to it."""
    max_grad_norm: Positive = 10.0
    """Longer gradients are shortened to this."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Share of a batch's statistics that normalisations take over. They lag behind by its inverse
    in batches, layer upon layer: trainings of a few hundred batches need .1 or more."""
    freeze: tuple[str, ...] = ()
    """Parts of the detector that stay as they are, such as `backbone` or `neck.context`."""
    precision: TrainingPrecision = "auto"
    """`auto` is bf16 where the device computes in it, else f32."""
    compile: bool = False
    """Whether torch compiles the network: minutes at first, and then a faster step on a GPU."""
    device: str = "auto"
    """`auto` is a GPU where there is one."""
    patience: Count = 100
    """Epochs without a better AP after which training ends."""
    evaluate_every: Count = 1
    """Epochs; the last one is always evaluated."""
    checkpoint_minutes: NotNegative = 10.0
    """Time between checkpoints inside an epoch; after each epoch there is one anyway."""
    tensorboard: bool = False
    """Whether losses and AP are also written for TensorBoard (extra `tensorboard`)."""
