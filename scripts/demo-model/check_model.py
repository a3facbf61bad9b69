"""Checks model.py against a reference checkpoint with recorded activations.

    python check_model.py DIR     DIR holds config.json, model.safetensors, expected.json and
                                  expected.safetensors with the reference's states
"""

import json
import os
import sys

import numpy as np
import torch

import model as M
import settings as S
import tensors


def configs(folder):
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    v, t = config["vision_config"], config["text_config"]
    vision = S.VisionConfig(v["hidden_size"], v["num_hidden_layers"], v["num_attention_heads"],
                            v["intermediate_size"], v["image_size"], v["patch_size"])
    text = S.TextConfig(t["hidden_size"], t["num_hidden_layers"], t["num_attention_heads"],
                        t["num_key_value_heads"], t["head_dim"], t["intermediate_size"], t["vocab_size"],
                        query_pre_attn_scalar=t["query_pre_attn_scalar"])
    return vision, text


def load(folder):
    """A model with the weights of a checkpoint folder, whoever wrote it."""
    model = M.PaliGemma(*configs(folder))
    weights = tensors.load(os.path.join(folder, "model.safetensors"))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def main(folder):
    model = load(folder)
    with open(os.path.join(folder, "expected.json")) as file:
        cases = {case["name"]: case for case in json.load(file)["cases"]}
    want = tensors.load(os.path.join(folder, "expected.safetensors"))
    case = cases["caption"]
    image = "image." + case["images"][0]
    worst = 0.0

    def compare(name, got):
        nonlocal worst
        difference = np.abs(got.detach().numpy() - want[name]).max()
        worst = max(worst, difference)
        print(f"{name}: {difference:.2e}")

    seen = model.see(torch.from_numpy(want[image + ".pixel_values"])[None])
    compare(image + ".vision_last_hidden_state", seen[0])
    rows = model.multi_modal_projector.linear(seen)
    compare(image + ".projector_output", rows[0])
    ids = torch.tensor(case["input_ids"])[None, rows.shape[1]:]
    trace = []
    # All of the prompt is prefix; the checkpoint's small window does not bind where it attends fully.
    states = model.hidden(rows, ids, torch.tensor([ids.shape[1]]), text_only=False, trace=trace)
    compare("caption.hidden_states", torch.stack([*(t[0] for t in trace), states[0]]))
    compare("caption.prefill_logits_all", model.logits(states[0]))
    assert worst < 2e-3, worst


if __name__ == "__main__":
    main(sys.argv[1])
