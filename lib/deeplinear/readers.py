"""What is in the files of the data sets, as NumPy arrays: inputs and labels."""

import gzip
import io
import math
import struct

import numpy as np

# The 35 nominal ethanol concentrations in ppm. The public copy of the data carries a monotone transform of them.
ETHANOL_PPM = (2.5, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100, 110, 120, 125, 130, 140, 150, 160, 170, 175,
               180, 190, 200, 210, 220, 225, 230, 240, 250, 275, 500, 600)


class DataUnavailable(RuntimeError):
    """A data set was found nowhere; the message names every place that was looked at."""


def table(content):
    """A CSV file with a header, labels in the last column."""
    rows = np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1)
    return rows[:, :-1], rows[:, -1]


def ethanol(content):
    """The public copy of the ethanol data; labels in ppm."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",")
    levels, index = np.unique(table[:, -1], return_inverse=True)
    if len(levels) != len(ETHANOL_PPM):
        raise DataUnavailable(f"the ethanol labels have {len(levels)} levels; expected {len(ETHANOL_PPM)}")
    return table[:, :-1], np.array(ETHANOL_PPM)[index]


def digits(content):
    """Images and labels of an npz file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return file["images"], file["labels"].astype(np.int64)


def idx_pair(images, labels):
    """Two compressed IDX files, images and labels."""
    X, y = parse_idx(gzip.decompress(images), 3), parse_idx(gzip.decompress(labels), 1)
    if len(X) != len(y) or y.max() > 9:
        raise DataUnavailable(f"{len(X)} images with {len(y)} labels up to {y.max()}; expected a label 0 to 9 for each")
    return X.reshape(len(X), -1), y.astype(np.int64)


def parse_idx(content, axes):
    """The array of unsigned bytes in an IDX file with this many axes.

    Raises :class:`DataUnavailable` unless type, number of axes and length are exactly as the header says.
    """
    head = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < head:
        raise DataUnavailable(f"an IDX file starts with {content[:4].hex()} in {len(content)} bytes; "
                              f"expected 000008{axes:02x} and a header of {head}")
    shape = struct.unpack(f">{axes}I", content[4:head])
    if len(content) - head != math.prod(shape):
        raise DataUnavailable(f"an IDX file of shape {shape} has {len(content) - head} bytes; expected {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
