"""Train a small network on a dataset folder, and print its accuracy.

    dscache run demo/patches.json -- python demo/train.py {path}

The network predicts which photograph a patch was cut from. It is tested on the split `val`, whose
patches come from regions of the photographs that are not in `train`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dscache

if TYPE_CHECKING:
    import tensorflow as tf

BATCH = 64
FILTERS = (16, 32, 64)
LEARNING_RATE = 2e-3
SEED = 1
INTERRUPTED = 130


def quiet_tensorflow() -> None:
    """Silence TensorFlow's native start-up messages; Python's warnings and errors stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123 - a descriptor is what dup2 takes
        os.dup2(devnull.fileno(), 2)
    try:
        import tensorflow  # noqa: F401 - prints messages before any log level applies
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def pairs(dataset: dscache.Dataset, split: str, *, shuffle: bool) -> tf.data.Dataset:
    """Return batches of images (uint8 [64, h, w, 3]) and labels (int64 [64])."""
    import tensorflow as tf

    examples = dataset.info["held"][split]
    batches = dataset.tfdata(split, batch_size=BATCH, shuffle=examples if shuffle else None)
    sized = batches.apply(tf.data.experimental.assert_cardinality(-(-examples // BATCH)))
    return sized.map(lambda example: (example["image"], example["label"])).prefetch(2)


def network(shape: tuple[int, int, int], classes: int, steps: int) -> Any:
    """Return a compiled Keras model; its learning rate falls to zero over `steps` batches."""
    from tensorflow import keras

    layers: list[Any] = [keras.Input(shape), keras.layers.Rescaling(1 / 127.5, -1)]
    for filters in FILTERS:
        layers += [
            keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(classes),
    ]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(dataset: dscache.Dataset, epochs: int) -> float:
    """Train, print a line for each epoch, and return the accuracy on `val`."""
    from tensorflow import keras

    keras.utils.set_random_seed(SEED)
    training, validation = (
        pairs(dataset, "train", shuffle=True),
        pairs(dataset, "val", shuffle=False),
    )
    classes = len(dataset.features["label"].names)  # type: ignore[attr-defined]  # a ClassLabel
    shape = next(iter(training))[0].shape[1:]
    model = network(tuple(shape), classes, epochs * len(training))

    def report(epoch: int, logs: dict[str, float]) -> None:
        say(
            f"epoch {epoch + 1:2d} of {epochs}   accuracy: train {logs['accuracy']:.2f}, "
            f"val {logs['val_accuracy']:.2f}"
        )

    model.fit(
        training,
        validation_data=validation,
        epochs=epochs,
        shuffle=False,  # tf.data shuffles
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
    )
    return float(model.evaluate(validation, verbose=0, return_dict=True)["accuracy"])


def say(text: str) -> None:
    """Print a line and flush it."""
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Run `train.py PATH [--epochs N]`."""
    parser = argparse.ArgumentParser(description="Train a small network on a dataset of patches.")
    parser.add_argument("path", type=Path, help="the folder that `dscache get` printed")
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    if given.epochs < 1:
        parser.error(f"--epochs {given.epochs}: expected at least 1")
    try:
        dataset = dscache.Dataset(given.path)
        began = time.monotonic()
        quiet_tensorflow()
        say(f"{dataset!r}; TensorFlow loaded in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        accuracy = train(dataset, given.epochs)
    except ModuleNotFoundError as error:
        parser.exit(1, f"error: {error}; run `make`, or `pip install 'dscache[tf]'`\n")
    except dscache.DscacheError as error:
        parser.exit(error.exit_code, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, "interrupted\n")
    classes = len(dataset.features["label"].names)  # type: ignore[attr-defined]  # a ClassLabel
    say(
        f"val accuracy {accuracy:.2f} on {dataset.info['held']['val']} patches of regions that "
        f"training never saw (chance: {1 / classes:.2f}), after {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
