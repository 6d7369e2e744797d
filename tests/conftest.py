import pytest
import torch

import deeplinear as dl

torch.set_num_threads(1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def ethanol():
    """The ethanol data, where it is on this machine; nothing is downloaded by a test."""
    try:
        return dl.data.load("ethanol", download=False)
    except dl.data.DataUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def diabetes():
    return dl.data.load("diabetes")
