import gzip
import hashlib
import struct

import numpy as np
import pooch
import pytest
import torch

import deeplinear as dl
from deeplinear import data


def test_diabetes_is_real_and_standardised():
    found = data.load("diabetes")
    assert found.X.shape == (442, 10) and found.y.shape == (442,) and found.X.dtype == torch.float64
    for column in (*found.X.T, found.y):
        assert abs(column.mean()) < 1e-12 and abs((column**2).mean() - 1) < 1e-12
    assert abs(found.y_mean - 152.133484) < 1e-6


def test_macrodata_is_nearly_the_identity_of_national_accounts():
    """Expenditure adds up to gross domestic product: four columns explain it, net exports aside."""
    found = data.load("macrodata")
    assert found.X.shape == (203, 11) and abs(found.y_mean - 7221.171901) < 1e-6
    for column in (*found.X.T, found.y):
        assert abs(column.mean()) < 1e-12 and abs((column**2).mean() - 1) < 1e-12
    fit = torch.linalg.lstsq(found.X[:, :3], found.y[:, None]).solution
    assert ((found.X[:, :3] @ fit - found.y[:, None]) ** 2).mean() < 2e-3


def test_ethanol_labels_are_the_ppm_values(ethanol):
    assert ethanol.X.shape == (2565, 128)
    assert abs(ethanol.y_mean - 114.95029239766) < 1e-10
    ppm = ethanol.y * ethanol.y_scale + ethanol.y_mean
    assert torch.unique(ppm.round(decimals=6)).tolist() == list(data.readers.ETHANOL_PPM)
    spectrum = torch.linalg.eigvalsh(ethanol.X.T @ ethanol.X / 2565)
    assert abs(spectrum[-1] - 72.94) < 0.01


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv(data.FOLDER_VARIABLE, str(tmp_path / "folder"))
    return tmp_path


def test_every_place_is_named_when_data_is_missing(nowhere, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", no_network)
    with pytest.raises(dl.data.DataUnavailable) as error:
        data.load("ethanol")
    for place in (nowhere / "folder" / "uci-ethanol.csv.gz", nowhere / "cache" / "deeplinear", "https://", "no network",
                  data.FOLDER_VARIABLE):
        assert str(place) in str(error.value)
    monkeypatch.delenv(data.FOLDER_VARIABLE)
    with pytest.raises(dl.data.DataUnavailable, match="DEEPLINEAR_DATA .not set."):
        data.load("ethanol", download=False)


def test_a_wrong_digest_is_named_and_the_file_not_used(nowhere):
    (nowhere / "folder").mkdir()
    wrong = nowhere / "folder" / "uci-ethanol.csv.gz"
    wrong.write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(dl.data.DataUnavailable, match=f"{wrong} has SHA-256 .*; expected {data.SETS['ethanol'].parts[0][0].sha256}"):
        data.load("ethanol", download=False)


@pytest.mark.parametrize("bad", [b"", gzip.compress(b"1,2,3\n"), None], ids=["empty", "another file", "a folder"])
def test_a_bad_file_does_not_mask_a_good_one(nowhere, monkeypatch, bad):
    """One in the named folder, the other in the cache, or to be downloaded."""
    good = b"a good file"
    file = data._File("uci-ethanol.csv.gz", hashlib.sha256(good).hexdigest(), "https://example.org/data")
    for folder in ("folder", "cache", "downloaded"):
        (nowhere / folder).mkdir()
    monkeypatch.setattr(pooch, "os_cache", lambda project: nowhere / "cache")
    (nowhere / "folder" / file.name).mkdir() if bad is None else (nowhere / "folder" / file.name).write_bytes(bad)
    (nowhere / "cache" / file.name).write_bytes(good)
    assert data._find((file,), "", download=False) == (file, good)
    (nowhere / "cache" / file.name).write_bytes(b"spoilt")
    with pytest.raises(dl.data.DataUnavailable, match=f"{nowhere / 'cache' / file.name} has SHA-256 "):
        data._find((file,), "", download=False)
    (nowhere / "downloaded" / file.name).write_bytes(good)
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: str(nowhere / "downloaded" / file.name))
    assert data._find((file,), "", download=True) == (file, good)


@pytest.mark.parametrize("named", ["~/sets", "$HOME/sets", "${HOME}/sets", " ~/sets "])
def test_the_folder_may_start_at_home(nowhere, monkeypatch, named):
    good = b"a good file"
    file = data._File("uci-ethanol.csv.gz", hashlib.sha256(good).hexdigest(), "https://example.org/data")
    (nowhere / "sets").mkdir()
    (nowhere / "sets" / file.name).write_bytes(good)
    monkeypatch.setenv("HOME", str(nowhere))
    monkeypatch.setenv("USERPROFILE", str(nowhere))
    monkeypatch.setenv(data.FOLDER_VARIABLE, named)
    assert data._find((file,), "", download=False) == (file, good)
    monkeypatch.setenv(data.FOLDER_VARIABLE, "~nobody-of-this-name/sets")
    with pytest.raises(dl.data.DataUnavailable, match="DEEPLINEAR_DATA is '~nobody-of-this-name/sets'"):
        data._find((file,), "", download=False)


def test_found_in_the_cache(ethanol, monkeypatch, tmp_path):
    file, content = data._find(data.SETS["ethanol"].parts[0], "", download=False)
    (tmp_path / file.name).write_bytes(content)
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    assert torch.equal(data.load("ethanol", download=False).X, ethanol.X)


def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(ValueError, match="data set 'mnist5k' is unknown; did you mean mnist-5k, mnist"):
        data.load("mnist5k")


def test_bundled_digits():
    found = data.load("mnist-5k")
    assert found.X.shape == (5000, 784) and found.X.dtype == torch.float32 and found.y.dtype == torch.int64
    assert torch.bincount(found.y).tolist() == [500] * 10
    assert found.X.min() == -0.5 and found.X.max() == 0.5 and found.X.mean() < -0.3  # dark paper, few bright pixels


@pytest.mark.parametrize("name, rows, ones", [("mnist", 60000, 6742), ("mnist-test", 10000, 1135)])
def test_full_mnist(name, rows, ones):
    try:
        found = data.load(name, download=False)
    except data.DataUnavailable as error:
        pytest.skip(str(error))
    assert found.X.shape == (rows, 784) and (found.y == 1).sum() == ones
    bundled = {row.tobytes() for row in data.load("mnist-5k").X.numpy()[::50]}
    shared = sum(row.tobytes() in bundled for row in found.X.numpy())
    assert (shared > 50) == (name == "mnist")  # the bundled digits are training images


def idx(axes=3, shape=(2, 2, 3), kind=8, extra=0):
    return bytes((0, 0, kind, axes)) + struct.pack(f">{len(shape)}I", *shape) + bytes(range(12 + extra))


def test_idx_is_read_strictly():
    assert data.readers.parse_idx(idx(), 3).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    for broken in (idx(kind=13), idx(extra=1), idx()[:-1], idx()[:9], idx(axes=1), idx(shape=(2, 2, 4)), b""):
        with pytest.raises(data.DataUnavailable, match="an IDX file .*; expected"):
            data.readers.parse_idx(broken, 3)


def test_labels_that_do_not_fit_the_images_are_refused():
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 2) + bytes((3, 10))
    with pytest.raises(data.DataUnavailable, match="2 images with 2 labels up to 10; expected a label 0 to 9 for each"):
        data.readers.idx_pair(gzip.compress(idx()), gzip.compress(labels))


class Frame(dict):
    columns = property(list)


def table(**changed):
    return Frame({"a": [1.0, 2, 3, 5], "y": [2, 4, 8, 6], "b": [True, False, True, True]} | changed)


def test_a_frame_is_a_standardised_data_set():
    found = dl.data.from_frame(table(), "y")
    X = torch.tensor([[1, 1], [2, 0], [3, 1], [5, 1]], dtype=torch.float64)
    assert found.X.shape == (4, 2) and found.X.dtype == found.y.dtype == torch.float64
    torch.testing.assert_close(found.X, (X - X.mean(0)) / X.std(0, correction=0))
    torch.testing.assert_close(found.y * found.y_scale + found.y_mean, torch.tensor([2, 4, 8, 6], dtype=torch.float64))
    assert found.name == "y" and found.source == "a data frame of 4 rows and 2 features: a, b"
    assert found.sha256 == dl.data.from_frame(table(), "y").sha256 != dl.data.from_frame(table(a=[1, 2, 3, 4]), "y").sha256
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    again = dl.data.from_frame(pandas.DataFrame(table()), "y")
    assert torch.equal(again.X, found.X) and torch.equal(again.y, found.y) and again.sha256 == found.sha256


@pytest.mark.parametrize("frame, target, message", [
    (table(), "z", "target is 'z'; expected a column: a, y, b"),
    (table(a=["u", "v", "w", "x"], b=[1, np.nan, 2, 3]), "y", "the frame: column 'a' holds .*u.*; column 'b' holds nan"),
    (table(y=[1, 2, np.inf, 3]), "y", "the frame: column 'y' holds inf; expected finite numbers"),
    (table(a=[7, 7, 7, 7]), "y", r"constant in the frame: a; expected columns that vary"),
    (table(a=[0.1, 0.1, 0.1, 0.3 - 0.2], y=[0, 0, 0, 0]), "y", "constant in the frame: a, y; expected"),
    (Frame(a=[1, 2], y=[1]), "y", "the frame: its columns have 2, 1 rows"),
    (Frame(y=[1, 2]), "y", r"the frame has 2 row\(s\) and 1 column\(s\); expected at least two of each"),
])
def test_a_frame_that_is_not_all_numbers_is_named(frame, target, message):
    with pytest.raises(ValueError, match=message):
        dl.data.from_frame(frame, target)
