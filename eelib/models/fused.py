"""Decoder layers as few operations on joined weights: what decoding runs where an architecture has a `FusedForm`.

At one token a step, the modules of transformers spend most of their time between operations. Here the projections of
queries, keys and values are one product, those of the gated feed-forward layer another, and residuals are added within
products. The joined weights take no memory: the model's own become views of them. The values are those of the model's
modules up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eelib.models.architectures import FusedForm


class LayerCache(Protocol):
    """What a layer asks of a key-value cache."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append (B, G, T, D) keys and values of a layer (1..L); return all of that layer's."""


@dataclass(frozen=True)
class Rotation:
    """Rotary cosines and sines of some positions, each (B or 1, 1, T, D); the first half of the sines is negated."""

    cos: Tensor
    sin: Tensor

    def narrow(self, start: int, length: int) -> "Rotation":
        """Those of `length` positions from `start` on."""
        return Rotation(self.cos.narrow(2, start, length), self.sin.narrow(2, start, length))

    def rotate(self, states: Tensor) -> Tensor:
        """(B, H, T, D) queries or keys turned by their positions (Su et al. 2021), as Llama pairs their halves."""
        return torch.addcmul(states * self.cos, states.roll(states.shape[-1] // 2, -1), self.sin)


@dataclass(frozen=True)
class Heads:
    """Attention heads: `count` of queries, `groups` of keys and values that `count / groups` of them share."""

    count: int
    groups: int
    width: int


Norm = tuple[Tensor | None, Tensor | None, float]  # weight, bias, epsilon


def rms_norm(states: Tensor, norm: Norm) -> Tensor:
    """By the root of the mean square."""
    return F.rms_norm(states, states.shape[-1:], norm[0], norm[2])


def layer_norm(states: Tensor, norm: Norm) -> Tensor:
    """By mean and standard deviation."""
    return F.layer_norm(states, states.shape[-1:], *norm)


def norm_heads(states: Tensor, norm: Norm) -> Tensor:
    """Each of (..., H, T, D) heads by its root of the mean square, with weights (..., H or 1, 1, D) of its own."""
    return F.rms_norm(states, states.shape[-1:], eps=norm[2]) * norm[0]


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention: (B, H, T, D) queries, (B, G, K, D) keys and values, gives (B * T, H * D).

    `mask` is boolean, (B or 1, 1, T, K), True where attention is allowed; None means that each of the T positions, which are
    the last of the K, sees itself and those before it: all of them for T = 1, else T = K.
    """
    batch, heads, tokens, width = query.shape
    if tokens == 1:
        # Heads that share keys become queries of one head, so that keys are not repeated.
        shared = query.reshape(batch, keys.shape[1], -1, width)
        return F.scaled_dot_product_attention(shared, keys, values, mask).reshape(batch, heads * width)
    out = F.scaled_dot_product_attention(
        query, keys, values, mask, is_causal=mask is None, enable_gqa=keys.shape[1] != heads
    )
    return out.transpose(1, 2).reshape(batch * tokens, heads * width)


class FusedLayer(nn.Module):
    """One decoder layer. A module, so that forward hooks can count and time it; its tensors are the model's own."""

    def __init__(
        self,
        index: int,
        heads: Heads,
        normalise: Callable[[Tensor, Norm], Tensor],
        norms: tuple[Norm, Norm],
        attention_weights: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
        feed_forward_weights: tuple[Tensor, Tensor | None, Tensor, Tensor | None],
        activation: Callable[[Tensor], Tensor],
        gated: bool,
        head_norm: Norm | None = None,
    ):
        super().__init__()
        self.index = index
        self.heads = heads
        self.normalise = normalise
        self.attention_norm, self.feed_forward_norm = norms
        self.joined, self.joined_bias, self.out, self.out_bias = attention_weights
        self.up, self.up_bias, self.down, self.down_bias = feed_forward_weights
        self.out_t, self.down_t = self.out.T, self.down.T
        self._turned = (heads.count + heads.groups, heads.groups)  # queries and keys, values
        self._query = (heads.count, heads.groups)
        self.activation = activation
        self.gated = gated
        self.head_norm = head_norm  # its weight is that of each head of queries and keys, (H + G, 1, D)

    def forward(
        self,
        hidden_states: Tensor,
        rotation: Rotation | None,
        cache: LayerCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """(B, T, D) states before the layer -> after it; `cache` gets its keys and values. `mask`: see `attention`."""
        query, keys, values = self.project(hidden_states, rotation)
        if cache is not None:
            keys, values = cache.update(keys, values, self.index)
        return self.finish(hidden_states, attention(query, keys, values, mask))

    def project(self, hidden_states: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """The layer up to its attention: (B, T, D) states -> queries (B, H, T, D/H), keys and values (B, G, T, D/H)."""
        batch, tokens, width = hidden_states.shape
        heads, flat = self.heads, hidden_states.view(-1, width)
        joined = _product(self.normalise(flat, self.attention_norm), self.joined, self.joined_bias)
        if tokens == 1:
            joined = joined.view(batch, -1, 1, heads.width)
        else:
            joined = joined.view(batch, tokens, -1, heads.width).transpose(1, 2)
        turned, values = joined.split(self._turned, 1)
        if self.head_norm is not None:
            turned = norm_heads(turned, self.head_norm)
        if rotation is not None:
            turned = rotation.rotate(turned)
        query, keys = turned.split(self._query, 1)
        return query, keys, values

    def finish(self, hidden_states: Tensor, attended: Tensor) -> Tensor:
        """The layer after its attention: (B, T, D) states before the layer, (B * T, H * D/H) attended -> states after it."""
        flat = hidden_states.view(-1, hidden_states.shape[-1])
        flat = _add_product(flat, attended, self.out_t, self.out_bias)
        up = _product(self.normalise(flat, self.feed_forward_norm), self.up, self.up_bias)
        if self.gated:
            gate, up = up.chunk(2, -1)
            up = self.activation(gate).mul_(up)
        else:
            up = self.activation(up)
        return _add_product(flat, up, self.down_t, self.down_bias).view(hidden_states.shape)


def _product(factor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """factor @ weight.T + bias."""
    if torch.compiler.is_compiling() and bias is not None:
        # Of a product of one row the compiler makes a kernel as fast as memory; a biased one it leaves to the library.
        return torch.mm(factor, weight.T) + bias
    return F.linear(factor, weight, bias)


def _add_product(states: Tensor, factor: Tensor, weight_t: Tensor, bias: Tensor | None) -> Tensor:
    """states + factor @ weight_t + bias."""
    if torch.compiler.is_compiling():  # see `_product`
        out = states + torch.mm(factor, weight_t)
        return out if bias is None else out + bias
    out = torch.addmm(states, factor, weight_t)
    return out if bias is None else out.add_(bias)


class FusedModel:
    """The layers of a model, and the keys and values that layers which did not run would have cached.

    Attributes
    ----------
    layers: `FusedLayer`s 1..L, from index 0.
    """

    def __init__(self, layers: list[FusedLayer], rotary: nn.Module | None, like: Tensor):
        self.layers = layers
        self.heads = layers[0].heads
        self._rotary = rotary
        self._like = like
        rows = slice(self.heads.count * self.heads.width, None)  # of keys and values
        # The input of all projections is one state, normed alike but for each layer's scale and shift: these go into
        # the weights, in float32, and one product serves all layers.
        with torch.no_grad():
            weights, biases = [], []
            for layer in layers:
                scale, shift, _ = layer.attention_norm
                weight = layer.joined[rows].float()
                bias = weight.new_zeros(1) if layer.joined_bias is None else layer.joined_bias[rows].float()
                if shift is not None:
                    bias = bias + weight @ shift.float()
                weights.append(weight if scale is None else weight * scale.float())
                biases.append(bias.expand(len(weight)))
            self._fill_weights = torch.cat(weights).to(like.dtype)
            self._fill_biases = torch.cat(biases).to(like.dtype)
        self._plain_norm = None, None, layers[0].attention_norm[2]
        if layers[0].head_norm is not None:
            weights = [layer.head_norm[0][-1] for layer in layers]
            self._key_norms = torch.stack(weights)[:, None, None]  # (L, 1, 1, 1, D)

    def rotation(self, positions: Tensor) -> Rotation | None:
        """Cosines and sines of (B, T) positions; None for a model without rotary ones."""
        if self._rotary is None:
            return None
        cos, sin = self._rotary(self._like, position_ids=positions)
        sign = torch.ones(sin.shape[-1], dtype=sin.dtype, device=sin.device)
        sign[: len(sign) // 2] = -1
        return Rotation(cos.unsqueeze(1), (sin * sign).unsqueeze(1))

    def keys_values(
        self, hidden_states: Tensor, rotation: Rotation | None, first: int, last: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that layers `first`..`last` would cache for (B, T, D) input states (Section 4.3.1).

        One product for all layers, and no queries.

        Returns
        -------
        Each (N, B, G, T, D/H) for the N layers.
        """
        batch, tokens, _ = hidden_states.shape
        layers, heads = last - first + 1, self.heads
        size = 2 * heads.groups * heads.width
        rows = slice((first - 1) * size, last * size)
        normed = self.layers[0].normalise(hidden_states, self._plain_norm)
        joined = F.linear(normed, self._fill_weights[rows], self._fill_biases[rows])
        joined = joined.view(batch, tokens, layers, 2 * heads.groups, heads.width)
        keys, values = joined.permute(2, 0, 3, 1, 4).split(heads.groups, 2)
        head_norm = self.layers[0].head_norm
        if head_norm is not None:
            keys = norm_heads(keys, (self._key_norms[first - 1 : last], None, head_norm[2]))
        return (keys if rotation is None else rotation.rotate(keys)), values


def _join(linears: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """The weights (and biases) of linear maps of one input as those of one map; theirs become views of it."""
    tensors: list[Tensor | None] = []
    for name in ("weight", "bias"):
        if getattr(linears[0], name) is None:
            tensors.append(None)
            continue
        joined = torch.cat([getattr(linear, name).data for linear in linears])
        start = 0
        for linear in linears:
            parameter = getattr(linear, name)
            parameter.data = joined[start : start + len(parameter)]
            start += len(parameter)
        tensors.append(joined)
    return tensors[0], tensors[1]


def _norm(module: nn.Module) -> Norm:
    if isinstance(module, nn.LayerNorm):
        return *_data(module), module.eps
    return module.weight.data, None, module.variance_epsilon


def _data(module: nn.Linear | nn.LayerNorm) -> tuple[Tensor | None, Tensor | None]:
    weight, bias = module.weight, module.bias
    return None if weight is None else weight.data, None if bias is None else bias.data


@torch.inference_mode(False)  # decoding asks for it first, but the weights must stay good for training
def fuse(layers: nn.ModuleList, form: FusedForm, rotary: nn.Module | None, like: Tensor) -> FusedModel:
    """Decoder layers of a form, joined. `like` says the dtype and device of the model."""
    fused = []
    for index, layer in enumerate(layers, start=1):
        attn, part = layer.self_attn, layer.get_submodule
        width = attn.head_dim
        heads = Heads(attn.q_proj.out_features // width, attn.k_proj.out_features // width, width)
        head_norm = None
        if form.head_norms:
            weights = [attn.q_norm.weight.data.expand(heads.count, 1, -1)]
            weights.append(attn.k_norm.weight.data.expand(heads.groups, 1, -1))
            head_norm = torch.cat(weights), None, attn.q_norm.variance_epsilon
        norms = [part(name) for name in form.norms]
        up = [part(name) for name in form.up]
        fused.append(
            FusedLayer(
                index,
                heads,
                layer_norm if isinstance(norms[0], nn.LayerNorm) else rms_norm,
                (_norm(norms[0]), _norm(norms[1])),
                (*_join([attn.q_proj, attn.k_proj, attn.v_proj]), *_data(part(form.out))),
                (*(_join(up) if len(up) > 1 else _data(up[0])), *_data(part(form.down))),
                part(form.activation),
                gated=len(up) > 1,
                head_norm=head_norm,
            )
        )
    return FusedModel(fused, rotary, like)
