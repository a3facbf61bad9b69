"""PaliGemma 2 in PyTorch, small enough to train on a CPU.

Parameters are named as in the published checkpoints, so that a state dict is a checkpoint.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import settings as S


def gelu(x):
    return F.gelu(x, approximate="tanh")


def softcap(x, cap):
    return cap * torch.tanh(x / cap)


# --- SigLIP vision tower ------------------------------------------------------------------------

class VisionAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(c.width, c.width))

    def forward(self, x):
        b, t, width = x.shape
        q, k, v = (proj(x).view(b, t, self.heads, -1).transpose(1, 2)
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        scores = q @ k.transpose(2, 3) * (width // self.heads) ** -0.5
        out = F.softmax(scores.float(), dim=-1).to(v.dtype) @ v
        return self.out_proj(out.transpose(1, 2).reshape(b, t, width))


class VisionMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = nn.Linear(c.width, c.mlp)
        self.fc2 = nn.Linear(c.mlp, c.width)

    def forward(self, x):
        return self.fc2(gelu(self.fc1(x)))


class VisionLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(c.width, c.norm_eps)
        self.self_attn = VisionAttention(c)
        self.layer_norm2 = nn.LayerNorm(c.width, c.norm_eps)
        self.mlp = VisionMlp(c)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x)).float()
        return x + self.mlp(self.layer_norm2(x)).float()


class VisionEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.patch = c.patch_size
        self.patch_embedding = nn.Conv2d(3, c.width, c.patch_size, c.patch_size)
        self.position_embedding = nn.Embedding((c.image_size // c.patch_size) ** 2, c.width)

    def forward(self, pixels):
        # The convolution as a product: patches do not overlap, and this is far quicker.
        b, _, h, w = pixels.shape
        p = self.patch
        patches = pixels.view(b, 3, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(b, -1, 3 * p * p)
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(patches, weight, self.patch_embedding.bias).float() + self.position_embedding.weight


class VisionEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(c) for _ in range(c.layers))


class VisionModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = VisionEmbeddings(c)
        self.encoder = VisionEncoder(c)
        self.post_layernorm = nn.LayerNorm(c.width, c.norm_eps)

    def forward(self, pixels):
        """[n, 3, size, size] in -1..1 -> [n, tokens, width]"""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


# --- Gemma 2 decoder ----------------------------------------------------------------------------

# What fused.py has in one pass each.

def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (1 + weight)


def gated(a, b):
    return gelu(a) * b


def attention_weights(scores, sees, queries, start, scale, cap):
    """Of scores [b, heads, rows, t], whose rows are `queries` queries of one head after those of another. A query at
    `start` + i sees what is up to there, and the first sees[sequence] in any case."""
    b, heads, rows, t = scores.shape
    at = torch.arange(t)
    visible = (at[None, :] <= at[start:, None])[None] | (at[None, None, :] < sees[:, None, None])
    bias = torch.where(visible, 0.0, -1e9)[:, None, None]
    scores = softcap(scores.float() * scale, cap).view(b, heads, rows // queries, queries, t) + bias
    return F.softmax(scores, dim=-1).view(b, heads, rows, t)

class RmsNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x):
        return rms_norm(x.float(), self.weight, self.eps)


def rope_table(tokens, head_dim, theta):
    angle = torch.arange(tokens)[:, None] * theta ** (-torch.arange(0, head_dim, 2) / head_dim)[None]
    angle = torch.cat([angle, angle], 1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class TextAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden, bias=False)

    def forward(self, x, sees, cos, sin, start):
        """Queries only from position `start` on."""
        c, (b, t, _) = self.c, x.shape
        rows, group = t - start, c.heads // c.kv_heads
        q = self.q_proj(x[:, start:]).view(b, rows, c.heads, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, c.kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos[start:t], sin[start:t]).to(v.dtype), rotate(k, cos[:t], sin[:t]).to(v.dtype)
        # Query heads that share a key head become further rows of one product.
        q = q.reshape(b, c.kv_heads, group * rows, c.head_dim)
        weights = attention_weights(q @ k.transpose(2, 3), sees, rows, start, c.query_pre_attn_scalar**-0.5,
                                    c.attn_softcap)
        out = (weights.to(v.dtype) @ v).view(b, c.heads, rows, c.head_dim)
        return self.o_proj(out.transpose(1, 2).reshape(b, rows, -1))


class TextMlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.up_proj = nn.Linear(c.hidden, c.ffn, bias=False)
        self.down_proj = nn.Linear(c.ffn, c.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))


class TextLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        for name in ("input_layernorm", "post_attention_layernorm",
                     "pre_feedforward_layernorm", "post_feedforward_layernorm"):
            setattr(self, name, RmsNorm(c.hidden, c.norm_eps))
        self.self_attn = TextAttention(c)
        self.mlp = TextMlp(c)

    def forward(self, x, sees, cos, sin, start=0):
        branch = self.self_attn(self.input_layernorm(x), sees, cos, sin, start)
        x = x[:, start:] + self.post_attention_layernorm(branch)
        branch = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(branch)


class Embedding(nn.Module):
    """Token table; the loc rows may be tied to smooth functions of the coordinate while training.

    A thousand unrelated loc rows would need far more examples than cosines of the coordinate,
    which make neighbours alike from the first step on.
    """

    def __init__(self, c, loc_start=None, waves=64):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c.vocab, c.hidden) * c.hidden**-0.5)
        self.loc_start = loc_start
        if loc_start is not None:
            place = (torch.arange(S.LOC_BINS) / (S.LOC_BINS - 1))[:, None]
            wave = torch.arange(waves)[None]
            basis = torch.cos(math.pi * place * wave) / (1 + wave / 8)
            self.register_buffer("basis", basis, persistent=False)
            self.waves = nn.Parameter(torch.randn(waves, c.hidden) * (c.hidden * basis.pow(2).sum(1).mean()) ** -0.5)

    def table(self):
        if self.loc_start is None:
            return self.weight
        end = self.loc_start + S.LOC_BINS
        return torch.cat([self.weight[: self.loc_start], self.basis @ self.waves, self.weight[end:]])


class TextModel(nn.Module):
    def __init__(self, c, loc_start):
        super().__init__()
        self.embed_tokens = Embedding(c, loc_start)
        self.layers = nn.ModuleList(TextLayer(c) for _ in range(c.layers))
        self.norm = RmsNorm(c.hidden, c.norm_eps)


class Wrapper(nn.Module):
    """One level of the published names."""

    def __init__(self, name, module):
        super().__init__()
        setattr(self, name, module)


class PaliGemma(nn.Module):
    def __init__(self, vision, text, loc_start=None, max_tokens=512):
        super().__init__()
        self.text_config = text
        self.vision_tower = Wrapper("vision_model", VisionModel(vision))
        self.multi_modal_projector = Wrapper("linear", nn.Linear(vision.width, text.hidden))
        self.language_model = Wrapper("model", TextModel(text, loc_start))
        cos, sin = rope_table(max_tokens, text.head_dim, text.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialise(self):
        for name, p in self.named_parameters():
            if p.dim() == 2 and ".layers." in name:
                depth = (self.text_config.layers if "language" in name else 6) * 2
                into = any(part in name for part in ("o_proj", "down_proj", "out_proj", "fc2"))
                nn.init.normal_(p, std=p.shape[1] ** -0.5 * (depth**-0.5 if into else 0.8))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
            elif "patch_embedding" in name:
                nn.init.normal_(p, std=p[0].numel() ** -0.5)
            elif "position_embedding" in name:
                nn.init.normal_(p, std=0.2)
        return self

    def see(self, pixels):
        """Vision states after the final norm, [n, image tokens, width]."""
        return self.vision_tower.vision_model(pixels)

    def hidden(self, image_rows, ids, prefix, text_only=True, trace=None):
        """Decoder states after the final norm.

        image_rows [b, i, hidden] (projector output), ids [b, t], prefix [b]: how many of the ids
        belong to the prompt and so see, and are seen by, everything before the suffix.
        Returns [b, t, hidden], or [b, i + t, hidden] unless text_only.
        """
        model, images = self.language_model.model, image_rows.shape[1]
        rows = F.embedding(ids, model.embed_tokens.table()) * self.text_config.hidden**0.5
        x = torch.cat([image_rows, rows], 1).float()
        last = len(model.layers) - 1
        for i, layer in enumerate(model.layers):
            if trace is not None:
                trace.append(x)
            # Of the last layer only the text rows are of use.
            x = layer(x, images + prefix, self.cos, self.sin, images if text_only and i == last else 0)
        return model.norm(x)

    def logits(self, states):
        table = self.language_model.model.embed_tokens.table()
        return softcap(F.linear(states, table).float(), self.text_config.final_softcap)

    @torch.no_grad()
    def generate(self, pixels, prompts, most=64, eos=1):
        """Greedy. pixels [n, 3, s, s], prompts: id lists -> id lists without <eos>.

        No cache: the sequences are short, and a whole batch is decoded at once.
        """
        rows = self.multi_modal_projector.linear(self.see(pixels).float())
        lengths = torch.tensor([len(p) for p in prompts])
        ids = torch.zeros(len(prompts), max(lengths) + most, dtype=torch.long)
        for i, p in enumerate(prompts):
            ids[i, : len(p)] = torch.tensor(p)
        done = torch.zeros(len(prompts), dtype=torch.bool)
        every = torch.arange(len(prompts))
        for n in range(most):
            states = self.hidden(rows, ids[:, : max(lengths) + n], lengths)
            token = self.logits(states[every, lengths + n - 1]).argmax(-1)
            ids[every, lengths + n] = torch.where(done, 0, token)
            done |= token == eos
            if done.all():
                break
        out = []
        for i, p in enumerate(prompts):
            tail = ids[i, len(p):].tolist()
            out.append(tail[: tail.index(eos)] if eos in tail else tail)
        return out


def to_pixels(images):
    """uint8 [n, h, w, 3] -> float [n, 3, h, w] in -1..1"""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()
