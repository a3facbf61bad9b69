"""The peer and the limits on a card: PyTorch in bf16, sdpa and a static cache, over the shapes of PaliGemma 2 3B with
random weights. Prints one line of JSON; times in milliseconds, medians of five runs."""

import json
import statistics
import time

import torch
import torch.nn.functional as F

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD, VOCAB = 2304, 9216, 26, 8, 4, 256, 257216
EYES, EYES_FFN, EYES_LAYERS, EYES_HEADS = 1152, 4304, 27, 16
device, dtype = "cuda", torch.bfloat16


def weight(rows, cols):
    return torch.randn(rows, cols, device=device, dtype=dtype) * 0.02


class Eyes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [
            [weight(3 * EYES, EYES), weight(EYES, EYES), weight(EYES_FFN, EYES), weight(EYES, EYES_FFN)]
            for _ in range(EYES_LAYERS)
        ]
        self.head = weight(HIDDEN, EYES)

    def forward(self, x):
        tokens = x.shape[0]
        for qkv, out, up, down in self.layers:
            parts = F.linear(F.layer_norm(x, (EYES,)), qkv).view(tokens, 3, EYES_HEADS, -1).permute(1, 2, 0, 3)
            y = F.scaled_dot_product_attention(parts[0][None], parts[1][None], parts[2][None])[0]
            x = x + F.linear(y.transpose(0, 1).reshape(tokens, EYES), out)
            x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (EYES,)), up), approximate="tanh"), down)
        return F.linear(x, self.head)


class Text(torch.nn.Module):
    def __init__(self, context, batch):
        super().__init__()
        rows = (HEADS + 2 * KV_HEADS) * HEAD
        self.layers = [
            [weight(rows, HIDDEN), weight(HIDDEN, HEADS * HEAD), weight(2 * FFN, HIDDEN), weight(HIDDEN, FFN)]
            for _ in range(LAYERS)
        ]
        self.table = weight(VOCAB, HIDDEN)
        self.cache = torch.zeros(LAYERS, 2, batch, KV_HEADS, context, HEAD, device=device, dtype=dtype)
        self.ones = torch.ones(HIDDEN, device=device, dtype=dtype)

    def forward(self, x, at):
        batch, tokens = x.shape[:2]
        for i, (qkv, out, gate_up, down) in enumerate(self.layers):
            parts = F.linear(F.rms_norm(x, (HIDDEN,), self.ones), qkv).view(batch, tokens, -1, HEAD).transpose(1, 2)
            q, k, v = parts.split([HEADS, KV_HEADS, KV_HEADS], 1)
            self.cache[i, 0].index_copy_(2, at, k)
            self.cache[i, 1].index_copy_(2, at, v)
            y = F.scaled_dot_product_attention(q, self.cache[i, 0, :batch], self.cache[i, 1, :batch], enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, tokens, -1), out)
            gate, up = F.linear(F.rms_norm(x, (HIDDEN,), self.ones), gate_up).chunk(2, -1)
            x = x + F.linear(F.gelu(gate, approximate="tanh") * up, down)
        return F.linear(x[:, -1], self.table)


def milliseconds(work):
    for _ in range(3):
        work()
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return round(statistics.median(times), 3)


def limits():
    a, b = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
    from_, to = (torch.empty(1 << 30, device=device, dtype=torch.uint8) for _ in range(2))
    product, copy = milliseconds(lambda: a @ b), milliseconds(lambda: to.copy_(from_))
    return {"bf16Tflops": round(2 * 8192**3 / product / 1e9, 1), "copyGBps": round(2 * (1 << 30) / copy / 1e6, 1)}


@torch.inference_mode()
def main():
    results = {"torch": torch.__version__, "card": torch.cuda.get_device_name(), "limits": limits(), "models": []}
    for compiled in (False, True):
        for tokens in (256, 1024):
            eyes, text = Eyes(), Text(tokens + 128, 1)
            if compiled:
                eyes, text = torch.compile(eyes), torch.compile(text, mode="reduce-overhead")
            picture = weight(tokens, EYES)
            prefix, step = weight(tokens + 8, HIDDEN)[None], weight(1, HIDDEN)[None]
            places, place = torch.arange(tokens + 8, device=device), torch.tensor([tokens + 8], device=device)
            results["models"].append(
                {
                    "compiled": compiled,
                    "imageTokens": tokens,
                    "visionMs": milliseconds(lambda: eyes(picture)),
                    "prefillMs": milliseconds(lambda: text(prefix, places)),
                    "decodeMs": milliseconds(lambda: text(step, place)),
                }
            )
            del eyes, text
            torch.cuda.empty_cache()
    print(json.dumps(results))


main()
