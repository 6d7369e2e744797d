import os
import random
import signal
import zlib

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings

import deeplinear as dl
import pdf

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background: Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples on every run: a failure belongs to the change at hand. HYPOTHESIS_PROFILE=search draws new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# Most of these start processes; last, they would keep one core waiting for the other. The Makefile keeps this order.
LONGEST_FIRST = ("shake", "shards", "mutations", "recorded", "gpu", "failures", "networks_random", "formal", "release", "sources",
                 "asking")


def pytest_collection_modifyitems(items):
    names = [f"test_{name}" for name in LONGEST_FIRST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


class TorchRandom:
    """PyTorch's global generator as hypothesis wants one, so that each example draws the same at every repetition."""

    seed, getstate, setstate = (staticmethod(f) for f in (torch.manual_seed, torch.get_rng_state, torch.set_rng_state))


TORCH_RANDOM = TorchRandom()
register_random(TORCH_RANDOM)  # which keeps a weak reference only


@pytest.fixture(autouse=True)
def seeded_by_name(request):
    """Tests that start modules of PyTorch draw from the global generators: the same for the same test, in any order."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # for a test that forgets to take a generator
    torch.manual_seed(seed)


def generator(seed):
    return torch.Generator().manual_seed(seed)


class Stop(Exception):
    """What interrupts a run."""


def stop_at(step):
    """A report that interrupts a run at this step."""
    def report(done):
        if done == step:
            raise Stop
    return report


@pytest.fixture
def ethanol():
    """The ethanol data, where it is on this machine; nothing is downloaded by a test."""
    try:
        return dl.data.load("ethanol", download=False)
    except dl.data.DataUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def chromium():
    """A headless browser."""
    if pdf.find_browser() is None:
        pytest.skip("no Chromium on this machine; nothing is opened in a browser")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=pdf.find_browser(),
                                             args=["--no-sandbox", "--allow-file-access-from-files"])
        yield browser
        browser.close()


@pytest.fixture
def diabetes():
    return dl.data.load("diabetes")
