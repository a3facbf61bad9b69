"""Reads a converted demo model back, so that training can go on from the shipped file.

    python from_gguf.py --model ../../demo/paligemma2-demo.gguf --out DIR

Writes DIR/checkpoint.pt for `train.py --resume`, DIR/tokenizer.model and DIR/vae-oid.npz. What the file does not hold
is begun anew: the dense heads (train.py fits them first, to a tower that stands still) and the optimizers' states.
--vae takes another code book, whose seg tokens then have to be learned anew.
"""

import argparse
import os
import re
import struct

import numpy as np
import torch

import mask_vae
import settings as S
import tokenizer as T
from train import Trainer

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, F16, Q8_0 = 0, 1, 8

# GGUF names to those of the published checkpoints; {n} is the layer.
TEXT = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj"}
VISION = {"ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
          "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"}
TOWER, LANGUAGE = "vision_tower.vision_model.", "language_model.model."
SINGLE = {"token_embd": LANGUAGE + "embed_tokens", "output_norm": LANGUAGE + "norm",
          "v.patch_embd": TOWER + "embeddings.patch_embedding",
          "v.position_embd": TOWER + "embeddings.position_embedding",
          "v.post_ln": TOWER + "post_layernorm", "mm.0": "multi_modal_projector.linear"}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, kind):
        value, = struct.unpack_from("<" + SCALARS[kind], self.data, self.at)
        self.at += struct.calcsize(SCALARS[kind])
        return value

    def string(self):
        size = self.scalar(10)
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, count = self.scalar(4), self.scalar(10)
            return [self.value(item) for _ in range(count)]
        return self.scalar(kind)


def values(data, kind, shape):
    """float32 of a tensor's bytes, which begin at data[0]"""
    count = int(np.prod(shape))
    if kind == Q8_0:
        blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("q", "i1", 32)]), count // 32)
        flat = blocks["scale"].astype(np.float32)[:, None] * blocks["q"]
    else:
        flat = np.frombuffer(data, {F32: "<f4", F16: "<f2"}[kind], count)
    return flat.astype(np.float32).reshape(shape)


def read(path):
    """(metadata, {name: float32 array})"""
    with open(path, "rb") as file:
        reader = Reader(file.read())
    assert reader.data[:4] == b"GGUF", path
    reader.at = 8
    tensors, pairs = reader.scalar(10), reader.scalar(10)
    metadata = {}
    for _ in range(pairs):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar(4))
    infos = []
    for _ in range(tensors):
        name = reader.string()
        shape = [reader.scalar(10) for _ in range(reader.scalar(4))][::-1]
        infos.append((name, shape, reader.scalar(4), reader.scalar(10)))
    align = metadata.get("general.alignment", 32)
    start = -(-reader.at // align) * align
    data = memoryview(reader.data)
    return metadata, {name: values(data[start + offset:], kind, shape) for name, shape, kind, offset in infos}


def published_name(name):
    stem, _, end = name.rpartition(".")
    if stem in SINGLE:
        return f"{SINGLE[stem]}.{end}"
    tower, layer, part = re.fullmatch(r"(v\.)?blk\.(\d+)\.(\w+)", stem).groups()
    parts, outer = (VISION, TOWER + "encoder.") if tower else (TEXT, LANGUAGE)
    return f"{outer}layers.{layer}.{parts[part]}.{end}"


def model_weights(arrays, expected):
    """The state dict of model.py, but for the waves. Text norms are stored + 1, the tower's inner width is padded."""
    weights = {}
    for name, array in arrays.items():
        if name.startswith("mask."):
            continue
        published = published_name(name)
        if array.ndim == 1 and published.startswith(LANGUAGE):
            array = array - 1
        shape = expected[published].shape
        array = array.reshape(array.shape[0], -1) if len(shape) == 2 else array
        array = array.reshape(shape) if array.size == shape.numel() else array[tuple(map(slice, shape))]
        weights[published] = torch.from_numpy(np.ascontiguousarray(array))
    return weights


def add_layers(model, weights):
    """Layers that settings.py asks for and the file does not have begin as what changes (almost) nothing."""
    for name, value in model.state_dict().items():
        if ".layers." not in name or name in weights:
            continue
        value = value.clone()
        if re.search(r"\.(out_proj|fc2)\.", name):
            value.zero_()
        elif "post_attention_layernorm" in name or "post_feedforward_layernorm" in name:
            value.fill_(-0.9)  # stored less one
        weights[name] = value


def sentencepiece(metadata):
    """The pieces up to `<image>`, which is an added token, as a SentencePiece file."""
    key = "tokenizer.ggml."
    pieces = metadata[key + "tokens"]
    body = b""
    for i in range(pieces.index("<image>")):
        body += T.piece_field(pieces[i], metadata[key + "token_type"][i], metadata[key + "scores"][i])

    def number(field, value):
        return T.varint(field << 3) + T.varint(value)

    def message(field, content):
        return T.varint(field << 3 | 2) + T.varint(len(content)) + content

    bpe, yes, no = 2, 1, 0
    trainer = number(3, bpe) + number(35, yes) + number(40, T.UNK) + number(41, T.BOS) + number(42, T.EOS)
    trainer += number(43, T.PAD) + b"".join(
        message(field, name) for field, name in ((45, b"<unk>"), (46, b"<bos>"), (47, b"<eos>"), (48, b"<pad>")))
    # no prefix, no whitespace removed, spaces written as the visible mark
    normalizer = message(1, b"identity") + number(3, no) + number(4, no) + number(5, yes)
    return body + message(2, trainer) + message(3, normalizer)


def seg_rows(old, vae):
    """Embeddings of a new code book's tokens: like cells begin with like rows, as large as the old ones."""
    cells = vae._vq_vae._embedding[:, :mask_vae.PROTOTYPE]
    rows = (cells - cells.mean(0)) @ torch.randn(mask_vae.PROTOTYPE, old.shape[1])
    return rows / rows.norm(dim=1, keepdim=True) * old.norm(dim=1).mean()


def unpacked_filter(name, array):
    """pack_masks.mjs stores a filter's values as one row."""
    if array.ndim != 2 or not name.startswith("decoder."):
        return array
    kernel = 4 if re.match(r"decoder\.(4|6|8|10)\.", name) else 3 if re.search(r"net\.[02]\.", name) else 1
    return array.reshape(len(array), -1, kernel, kernel)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--vae")
    args = parser.parse_args()
    torch.manual_seed(0)
    os.makedirs(args.out, exist_ok=True)
    metadata, arrays = read(args.model)
    path = os.path.join(args.out, "tokenizer.model")
    with open(path, "wb") as file:
        file.write(sentencepiece(metadata))
    tokenizer = T.Tokenizer(path)
    trainer = Trainer(tokenizer, S.TrainConfig())
    weights = model_weights(arrays, trainer.model.state_dict())
    embedding = trainer.model.language_model.model.embed_tokens
    locs = weights[LANGUAGE + "embed_tokens.weight"][tokenizer.loc:tokenizer.loc + S.LOC_BINS]
    # the cosines whose sum the stored rows are, but for their rounding
    weights[LANGUAGE + "embed_tokens.waves"] = torch.linalg.lstsq(embedding.basis, locs).solution
    off = (embedding.basis @ weights[LANGUAGE + "embed_tokens.waves"] - locs).abs().max()
    print(f"loc rows are off by {off:.5f} at most, of {locs.abs().max():.3f}")
    if args.vae:
        table = weights[LANGUAGE + "embed_tokens.weight"]
        at = slice(tokenizer.seg, tokenizer.seg + S.SEG_CODES)
        table[at] = seg_rows(table[at], mask_vae.load(args.vae))
    else:
        masks = {name.removeprefix("mask."): array for name, array in arrays.items() if name.startswith("mask.")}
        masks = {name: unpacked_filter(name, array) for name, array in masks.items()}
        np.savez(os.path.join(args.out, "vae-oid.npz"), **masks)
    add_layers(trainer.model, weights)
    trainer.model.load_state_dict(weights)
    state = {"stage": "heads", "step": 0, "elapsed": 0.0, "trainer": trainer.state_dict(),
             "average": [p.detach().clone() for p in trainer.parameters()]}
    torch.save(state, os.path.join(args.out, "checkpoint.pt"))


if __name__ == "__main__":
    main()
