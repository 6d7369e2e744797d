"""The operations of PyTorch that are read, ``{name: function(reader, node, *arguments)}``.

All others refuse what goes into them, and so do arguments for which a function gives ``NotImplemented``.
"""

from . import elementwise as e
from . import layers

NAMES = {
    e.move: "view reshape _unsafe_view permute transpose t numpy_T mT movedim swapaxes swapdims flatten unflatten squeeze "
            "unsqueeze expand expand_as view_as select slice narrow split split_with_sizes tensor_split chunk unbind unfold "
            "contiguous clone alias flip roll repeat repeat_interleave diagonal pixel_shuffle pixel_unshuffle channel_shuffle",
    e.join: "cat concat stack",
    e.alike: "neg neg_ type_as lift_fresh_copy",
    e.convert: "to _to_copy", e.pair: "view_as_complex", e.unpair: "view_as_real",
    e.unit_by_unit: "relu relu_ leaky_relu leaky_relu_ rrelu rrelu_ dropout dropout_ feature_dropout feature_dropout_ abs",
    e.clamp: "clamp clamp_ clamp_min clamp_min_",
    e.prelu: "prelu", e.glu: "glu", e.choose: "where", e.mask: "masked_fill masked_fill_",
    e.add: "add add_ sub sub_", e.multiply: "mul mul_", e.divide: "div div_",
    e.power: "pow", e.known_power: " ".join(e.POWERS),
    e.pool: " ".join(e.POOLS), e.pad: "pad constant_pad_nd", e.reduce: "sum mean amax amin max min",
    e.detached: "detach", e.without_gradient: "wrap_with_set_grad_enabled", e.getitem: "getitem",
    e.zeros: "zeros new_zeros zeros_like",
    e.made: "ones full arange eye scalar_tensor ones_like empty_like rand_like randn_like new_ones "
            "rand randn _assert_tensor_metadata",
    layers.linear: "linear", layers.matmul: "matmul mm bmm mv", layers.addmm: "addmm baddbmm", layers.einsum: "einsum",
    layers.convolve: "conv1d conv2d conv3d",
    layers.convolve_transposed: "conv_transpose1d conv_transpose2d conv_transpose3d",
    layers.embed: "embedding", layers.attention: "scaled_dot_product_attention", layers.normalise: "layer_norm",
    layers.rms_normalise: "rms_norm", layers.batch_normalise: "batch_norm instance_norm", layers.group_normalise: "group_norm",
}
OPERATIONS = {name: function for function, names in NAMES.items() for name in names.split()}
