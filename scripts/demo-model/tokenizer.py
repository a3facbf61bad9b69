"""Trains the SentencePiece vocabulary and wraps it.

Layout as in the published models: control and user-defined pieces, bytes, BPE pieces, then
`<loc0000>`..`<loc1023>` and `<seg000>`..`<seg127>` as user-defined pieces. `<image>` follows as an
added token outside of `tokenizer.model`.

    python tokenizer.py --out tokenizer.model
"""

import argparse
import os
import pydoc_data.topics
import struct
import tempfile

import numpy as np
import sentencepiece as spm

import settings as S

PAD, EOS, BOS, UNK = 0, 1, 2, 3
USER_DEFINED_TYPE = 4
CONTROL_WORDS = ["<start_of_turn>", "<end_of_turn>"]
USER_DEFINED = ["<mask>"] + CONTROL_WORDS + ["\n" * n for n in range(1, 9)] + ["▁" * n for n in range(2, 9)]


def corpus():
    """The demo's own words, weighted, and plain English so that any prompt can be written."""
    import scenes
    import tasks
    rng = np.random.default_rng(0)
    for _ in range(8000):
        scene = tasks.Facts.of_scene(scenes.random_scene(rng))
        yield scene.caption()
        for task in ("answer", "answer", "answer", "caption", "ocr"):
            prompt, suffix = tasks.sample(task, scene, rng)
            yield prompt
            yield suffix
        # Label lists carry no loc tokens here: those are pieces of their own.
        names = " ; ".join(dict.fromkeys(scene.labels()))
        yield from (f"detect {names}", f"segment {names}")
    for topic in pydoc_data.topics.topics.values():
        yield from (line.strip() for line in topic.splitlines() if line.strip())


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def piece_field(piece, kind, score=0.0):
    """One more `pieces` entry of the ModelProto; repeated protobuf fields may simply be appended."""
    text = piece.encode()
    body = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
    return b"\x0a" + varint(len(body)) + body


def train(path):
    with tempfile.TemporaryDirectory() as folder:
        text = os.path.join(folder, "corpus.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in corpus())
        prefix = os.path.join(folder, "base")
        spm.SentencePieceTrainer.train(
            input=text, model_prefix=prefix, model_type="bpe", vocab_size=S.BASE_PIECES,
            byte_fallback=True, split_digits=True, normalization_rule_name="identity",
            add_dummy_prefix=False, remove_extra_whitespaces=False, user_defined_symbols=USER_DEFINED,
            pad_id=PAD, eos_id=EOS, bos_id=BOS, unk_id=UNK,
            pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
            character_coverage=1.0, max_sentence_length=8192, minloglevel=2)
        with open(prefix + ".model", "rb") as file:
            model = file.read()
    names = [f"<loc{i:04d}>" for i in range(S.LOC_BINS)] + [f"<seg{i:03d}>" for i in range(S.SEG_CODES)]
    with open(path, "wb") as file:
        file.write(model + b"".join(piece_field(name, USER_DEFINED_TYPE) for name in names))


class Tokenizer:
    def __init__(self, path):
        self.sp = spm.SentencePieceProcessor(model_file=path)
        self.loc = self.sp.piece_to_id("<loc0000>")
        self.seg = self.sp.piece_to_id("<seg000>")
        self.image = self.sp.get_piece_size()
        self.newline = self.sp.piece_to_id("\n")
        self._cache = {}

    def encode(self, text):
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self.sp.encode(text)
        return self._cache[text]

    def prompt(self, text):
        """The separator is its own token whatever the prompt ends in."""
        return [BOS, *self.encode(text), self.newline]

    def decode(self, ids):
        return self.sp.decode([int(i) for i in ids])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    train(args.out)
    tokenizer = Tokenizer(args.out)
    print(tokenizer.sp.get_piece_size(), "pieces")
    for line in ("answer en how many red circles are there?", "detect blue heart ; star",
                 "two purple crosses and a black ring on a striped background", "347", "STOP",
                 "<loc0012><loc1023><seg003> star"):
        print(tokenizer.sp.encode(line, out_type=str))
