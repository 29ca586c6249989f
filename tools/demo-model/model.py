"""The decoder: the shape of Qwen 3 (RMS norm, rotary positions in halves, grouped queries with normalized queries and keys, gated SiLU, tied
embeddings), with the tensor names of the Hugging Face class, so that the export is a renaming and nothing else."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

ROPE_THETA = 10_000.0
NORM_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class Shape:
    """Widths are multiples of 32, the block of Q8_0 and Q4_0."""

    width: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    ff_width: int
    head_dim: int = 32

    def parameters(self, n_vocab):
        attention = self.width * self.head_dim * (2 * self.n_heads + 2 * self.n_kv_heads) + 2 * self.head_dim
        return n_vocab * self.width + self.n_layers * (attention + 3 * self.width * self.ff_width + 2 * self.width) + self.width


SHAPES = {
    "smoke": Shape(width=32, n_layers=1, n_heads=1, n_kv_heads=1, ff_width=32),
    "small": Shape(width=128, n_layers=6, n_heads=4, n_kv_heads=2, ff_width=384),
    "medium": Shape(width=160, n_layers=6, n_heads=5, n_kv_heads=1, ff_width=480),
    "large": Shape(width=192, n_layers=7, n_heads=6, n_kv_heads=2, ff_width=576),
}


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


def rotate(x, cos, sin):
    """x: [batch, heads, tokens, head_dim]"""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.n_heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.n_kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.n_kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.n_heads * shape.head_dim, shape.width, bias=False)
        self.q_norm = RmsNorm(shape.head_dim)
        self.k_norm = RmsNorm(shape.head_dim)

    def forward(self, x, rope, mask):
        batch, tokens, _ = x.shape
        heads = lambda y: y.view(batch, tokens, -1, self.shape.head_dim)
        q = rotate(self.q_norm(heads(self.q_proj(x))).transpose(1, 2), *rope)
        k = rotate(self.k_norm(heads(self.k_proj(x))).transpose(1, 2), *rope)
        v = heads(self.v_proj(x)).transpose(1, 2)
        repeat = self.shape.n_heads // self.shape.n_kv_heads
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class FeedForward(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.ff_width, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.ff_width, bias=False)
        self.down_proj = nn.Linear(shape.ff_width, shape.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = RmsNorm(shape.width)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RmsNorm(shape.width)
        self.mlp = FeedForward(shape)

    def forward(self, x, rope, mask):
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, shape, n_vocab):
        super().__init__()
        self.shape, self.n_vocab = shape, n_vocab
        self.embed_tokens = nn.Embedding(n_vocab, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.norm = RmsNorm(shape.width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 if not name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02 / (2 * shape.n_layers) ** 0.5
                nn.init.normal_(parameter, std=scale)

    def hidden(self, ids, mask=None):
        """ids: [batch, tokens] -> [batch, tokens, width]. mask: [batch, 1, tokens, tokens], true where a token may look; none: causal."""
        positions = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)
        inverse = ROPE_THETA ** (-torch.arange(0, self.shape.head_dim, 2, device=ids.device, dtype=torch.float32) / self.shape.head_dim)
        angles = torch.outer(positions, inverse).repeat(1, 2)
        rope = (angles.cos(), angles.sin())
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, rope, mask)
        return self.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.embed_tokens.weight)

    @torch.no_grad()
    def answer(self, prompts, end, max_tokens):
        """Greedy answers to lists of ids, side by side. Plain and slow: every step computes everything again."""
        device = self.embed_tokens.weight.device
        sequences = [list(prompt) for prompt in prompts]
        going = list(range(len(prompts)))
        for _ in range(max_tokens):
            if not going:
                break
            longest = max(len(sequences[i]) for i in going)
            ids = torch.tensor([sequences[i] + [0] * (longest - len(sequences[i])) for i in going], device=device)
            last = torch.tensor([len(sequences[i]) - 1 for i in going], device=device)
            hidden = self.hidden(ids)[torch.arange(len(going), device=device), last]
            best = self.logits(hidden).argmax(-1).tolist()
            for i, token in zip(going, best):
                sequences[i].append(token)
            going = [i for i, token in zip(going, best) if token != end]
        return [sequence[len(prompt) :] for sequence, prompt in zip(sequences, prompts)]
