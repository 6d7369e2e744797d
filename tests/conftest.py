import os

import pytest
import torch
from hypothesis import settings

import deeplinear as dl

torch.set_num_threads(1)
# The same examples on every run: a failure belongs to the change at hand. HYPOTHESIS_PROFILE=search draws new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


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
