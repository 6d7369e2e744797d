"""The experiment on pretrained heads, on a made-up wheel: its numbers against a direct computation, and what it refuses."""

import io
import json
import os
import struct
import zipfile

import deeplinear as dl
import numpy as np
import pytest
import torch
from deeplinear.experiments import pretrained


def test_its_numbers_are_those_of_a_direct_computation():
    config = pretrained.SCALES["quick"]
    jobs = pretrained.jobs(config, "cpu")
    metrics, summary, arrays = pretrained.collect(config, jobs, [pretrained.run_job(config, job, "cpu") for job in jobs])
    tensors, _, digest = pretrained.read("made-up")
    get = lambda layer, name: tensors[f"encoder.layer.{layer}.attention.{name}"].double().numpy()

    def cosine(A, B):
        A, B = (G - np.trace(G) / len(G) * np.eye(len(G)) for G in (A, B))
        return np.trace(A @ B) / np.linalg.norm(A) / np.linalg.norm(B)

    for layer in (0, 1):
        for head in (0, 1):
            at, k = slice(4 * head, 4 * head + 4), 2 * layer + head
            W = {name: get(layer, f"self.{name}.weight")[at] for name in ("query", "key", "value")}
            b = {name: get(layer, f"self.{name}.bias")[at] for name in W}
            O = get(layer, "output.dense.weight")[:, at]
            one, two = ({name: W[name] @ W[name].T + s * np.outer(b[name], b[name]) for name in W} for s in (0, 1))
            expected = [cosine(one["query"], one["key"]), cosine(O.T @ O, one["value"]), cosine(two["query"], two["key"]),
                        cosine(O.T @ O, two["value"])]
            np.testing.assert_allclose(arrays["made-up cosines"][:, k], expected, atol=1e-6)
            assert abs(arrays["made-up biases"][1, k] - np.linalg.norm(b["key"])) < 1e-6
    assert arrays["made-up rotated"].shape == (4, 2, 4) and summary["made-up"]["file_sha256"] == digest
    low, middle, high = arrays["made-up predicted"].unbind(1)
    assert (low <= middle).all() and (middle <= high).all() and (high <= 1).all() and len(metrics) == 1
    assert 0.1 < arrays["made-up grown"].median() < 10  # the made-up weights are a start


def test_a_wheel_that_is_not_there_or_is_another_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLINEAR_DATA", "")
    with pytest.raises(dl.data.DataUnavailable, match="any folder.*pip download --no-deps --dest FOLDER rxnfp==0.1.0"):
        pretrained.read("rxnfp")
    monkeypatch.setenv("DEEPLINEAR_DATA", str(tmp_path))
    (tmp_path / pretrained.MODELS["rxnfp"].wheel).write_bytes(pretrained.made_up())
    with pytest.raises(dl.data.DataUnavailable, match="expected c5c1e818.*The file is not used"):
        pretrained.read("rxnfp")


def test_files_of_tensors_are_read_and_nothing_in_them_is_executed(tmp_path, monkeypatch):
    values = dl.normal(2, 3, generator=dl.seeded(0)).float()
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
                         "b": {"dtype": "I64", "shape": [], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + 4 * b"x" + values.numpy().tobytes()
    found = pretrained.safetensors(content)
    assert found.keys() == {"a"} and torch.equal(found["a"], values)

    class Poison:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    weights, wheel = io.BytesIO(), io.BytesIO()
    torch.save({"a": Poison()}, weights)
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("made_up/model.bin", weights.getvalue())
        file.writestr("made_up/config.json", "{}")
    monkeypatch.setattr(pretrained, "made_up", wheel.getvalue)
    with pytest.raises(Exception, match="(?i)weights.only"):
        pretrained.read("made-up")
    assert not list(tmp_path.iterdir())
