"""Writes a checkpoint as a Hugging Face directory, with vae-oid.npz beside the model.

    python export.py --checkpoint DIR/checkpoint.pt --tokenizer tokenizer.model --vae vae-oid.npz --out EXPORT
"""

import argparse
import json
import os
import shutil

import torch

import settings as S
import tensors
from tokenizer import BOS, EOS, PAD, USER_DEFINED, Tokenizer
from train import Trainer


def blend(trainer, path, share, tokenizer):
    """A mean with the weights that training began from: it keeps more of what was known before and not asked again."""
    before = torch.load(path, weights_only=False)["trainer"]
    at = slice(tokenizer.seg, tokenizer.seg + S.SEG_CODES)
    with torch.no_grad():
        for name, p in trainer.named_parameters():
            new = p.clone()
            p.lerp_(before[name], 1 - share)
            if name.endswith("embed_tokens.weight"):  # of another code book, maybe
                p[at] = new[at]


def final_weights(checkpoint, tokenizer, last, before=None, share=1.0):
    """The running mean of the weights or, after a short training that it lags behind, the last ones."""
    trainer = Trainer(tokenizer, S.TrainConfig())
    trainer.load_state_dict(checkpoint["trainer"])
    if not last:
        with torch.no_grad():
            for p, mean in zip(trainer.parameters(), checkpoint["average"]):
                p.copy_(mean)
    if before:
        blend(trainer, before, share, tokenizer)
    model = trainer.model
    table = model.language_model.model.embed_tokens.table().detach().clone()
    table[tokenizer.image:] = 0  # <image> and padding: never looked up
    weights = {}
    for name, value in model.state_dict().items():
        if name.endswith("embed_tokens.waves"):
            continue
        weights[name] = (table if name.endswith("embed_tokens.weight") else value).float().numpy()
    return weights


def config(tokenizer):
    v, t = S.VisionConfig(), S.TextConfig()
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "_vocab_size": tokenizer.image,
        "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
        "hidden_size": t.hidden,
        "image_token_index": tokenizer.image,
        "model_type": "paligemma",
        "num_hidden_layers": t.layers,
        "projection_dim": t.hidden,
        "text_config": {
            "architectures": ["Gemma2ForCausalLM"],
            "attn_logit_softcapping": t.attn_softcap,
            "cache_implementation": "hybrid",
            "final_logit_softcapping": t.final_softcap,
            "head_dim": t.head_dim,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": t.hidden,
            "intermediate_size": t.ffn,
            "max_position_embeddings": 8192,
            "model_type": "gemma2",
            "num_attention_heads": t.heads,
            "num_hidden_layers": t.layers,
            "num_image_tokens": S.IMAGE_TOKENS,
            "num_key_value_heads": t.kv_heads,
            "query_pre_attn_scalar": int(t.query_pre_attn_scalar),
            "rms_norm_eps": t.norm_eps,
            "rope_theta": t.rope_theta,
            "sliding_window": t.sliding_window,
            "torch_dtype": "float32",
            "vocab_size": t.vocab,
        },
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "vision_config": {
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": v.width,
            "image_size": v.image_size,
            "intermediate_size": v.mlp,
            "layer_norm_eps": v.norm_eps,
            "model_type": "siglip_vision_model",
            "num_attention_heads": v.heads,
            "num_channels": 3,
            "num_hidden_layers": v.layers,
            "num_image_tokens": S.IMAGE_TOKENS,
            "num_positions": S.IMAGE_TOKENS,
            "patch_size": v.patch_size,
            "projection_dim": t.hidden,
            "torch_dtype": "float32",
            "vision_use_head": False,
        },
    }


PREPROCESSOR = {
    "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "image_processor_type": "SiglipImageProcessor", "image_seq_length": S.IMAGE_TOKENS,
    "processor_class": "PaliGemmaProcessor", "resample": 3, "rescale_factor": 1 / 255,
    "size": {"height": S.IMAGE_SIZE, "width": S.IMAGE_SIZE},
}


def added_token(content, special):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": special}


def added_tokens(tokenizer):
    """{id: entry} of the tokens that are matched before BPE."""
    sp = tokenizer.sp
    entries = {}
    for i in range(sp.get_piece_size()):
        piece = sp.id_to_piece(i)
        special = i < 4 or piece in ("<start_of_turn>", "<end_of_turn>")
        if special or piece in USER_DEFINED or piece.startswith(("<loc", "<seg")):
            entries[i] = added_token(piece, special)
    entries[tokenizer.image] = added_token("<image>", True)
    return entries


def tokenizer_json(tokenizer, added):
    """The same vocabulary for the `tokenizers` library; merges are those whose result is a piece."""
    sp = tokenizer.sp
    pieces = {sp.id_to_piece(i): i for i in range(sp.get_piece_size())}
    merges = []
    for piece, i in pieces.items():
        if sp.is_byte(i) or piece.startswith("<"):
            continue
        splits = [(piece[:n], piece[n:]) for n in range(1, len(piece))]
        # BPE pieces are numbered in the order they were merged in.
        found = [(a, b) for a, b in splits if a in pieces and b in pieces]
        merges += [(i, pieces[a], pieces[b], a, b) for a, b in found]
    merges.sort()
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, **entry} for i, entry in added.items()],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                          "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": pieces, "merges": [[a, b] for *_, a, b in merges]},
    }


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def export(checkpoint_path, tokenizer_path, vae_path, out, **how):
    tokenizer = Tokenizer(tokenizer_path)
    checkpoint = torch.load(checkpoint_path, weights_only=False)
    folder = out.rstrip("/") + ".tmp"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    tensors.save(os.path.join(folder, "model.safetensors"), final_weights(checkpoint, tokenizer, **how))
    shutil.copy(tokenizer_path, os.path.join(folder, "tokenizer.model"))
    shutil.copy(vae_path, os.path.join(folder, "vae-oid.npz"))
    added = added_tokens(tokenizer)
    image = added_token("<image>", True)
    image.pop("special")
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder, "config.json", config(tokenizer))
    write_json(folder, "preprocessor_config.json", PREPROCESSOR)
    write_json(folder, "added_tokens.json", {"<image>": tokenizer.image})
    write_json(folder, "tokenizer.json", tokenizer_json(tokenizer, added))
    write_json(folder, "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": {str(i): e for i, e in added.items()},
        "additional_special_tokens": ["<image>"], "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30, "processor_class": "PaliGemmaProcessor", "sp_model_kwargs": {},
        "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer",
        "use_default_system_prompt": False, **named})
    write_json(folder, "special_tokens_map.json", {
        "additional_special_tokens": [image],
        **{k: {kk: vv for kk, vv in added_token(v, True).items() if kk != "special"} for k, v in named.items()}})
    write_json(folder, "generation_config.json", {
        "_from_model_config": True, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
        "transformers_version": "4.47.0.dev0"})
    old = out.rstrip("/") + ".old"
    if os.path.exists(out):
        os.rename(out, old)
    os.rename(folder, out)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{out}: {checkpoint['stage']} step {checkpoint['step']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--checkpoint", "--tokenizer", "--vae", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--last", action="store_true", help="the last weights instead of their running mean")
    parser.add_argument("--before", help="checkpoint that the training began from, to take a mean with")
    parser.add_argument("--share", type=float, default=0.7, help="of the trained weights in that mean")
    args = parser.parse_args()
    export(args.checkpoint, args.tokenizer, args.vae, args.out, last=args.last, before=args.before, share=args.share)
