"""Sheets of real and generated images, smaller than the hosts' of 1024. Imported by drivers."""

import numpy as np


def small_sheets():
    """Let the host's training loop show 4 images of the data set, and as many generated ones."""
    from training import training_loop

    def four(training_set, **_):
        images, labels = zip(*(training_set[index] for index in range(4)))
        return (2, 2), np.stack(images), np.stack(labels)

    training_loop.setup_snapshot_image_grid = four
