import gzip
import hashlib
import struct

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
    assert torch.unique(ppm.round(decimals=6)).tolist() == list(data.ETHANOL_PPM)
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
    assert data.parse_idx(idx(), 3).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    for broken in (idx(kind=13), idx(extra=1), idx()[:-1], idx()[:9], idx(axes=1), idx(shape=(2, 2, 4)), b""):
        with pytest.raises(data.DataUnavailable, match="an IDX file .*; expected"):
            data.parse_idx(broken, 3)


def test_labels_that_do_not_fit_the_images_are_refused():
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 2) + bytes((3, 10))
    with pytest.raises(data.DataUnavailable, match="2 images with 2 labels up to 10; expected a label 0 to 9 for each"):
        data._idx_pair(gzip.compress(idx()), gzip.compress(labels))
