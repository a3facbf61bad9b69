"""The peer and the limits on a card: PyTorch in bf16, sdpa and a static cache, over the shapes of PaliGemma 2 3B with
random weights. Prints a line of JSON after each measurement, the last one with all of them; times in milliseconds,
medians of five runs. PEER_DEVICE=cpu with PEER_LAYERS=2 tries the script itself."""

import json
import os
import statistics
import time

import torch
import torch.nn.functional as F

HIDDEN, FFN, HEADS, KV_HEADS, HEAD, VOCAB = 2304, 9216, 8, 4, 256, 257216
EYES, EYES_FFN, EYES_HEADS = 1152, 4304, 16
LAYERS = int(os.environ.get("PEER_LAYERS", 26))
EYES_LAYERS = int(os.environ.get("PEER_LAYERS", 27))
device, dtype = os.environ.get("PEER_DEVICE", "cuda"), torch.bfloat16
on_card = device == "cuda"


def weight(rows, cols):
    return torch.randn(rows, cols, device=device, dtype=dtype) * 0.02


# Parameters and buffers: CUDA graphs of torch.compile take these where they are.
def weights(*shapes):
    return torch.nn.ParameterList(torch.nn.Parameter(weight(*shape), requires_grad=False) for shape in shapes)


class Eyes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            weights((3 * EYES, EYES), (EYES, EYES), (EYES_FFN, EYES), (EYES, EYES_FFN)) for _ in range(EYES_LAYERS)
        )
        self.head = torch.nn.Parameter(weight(HIDDEN, EYES), requires_grad=False)

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
        self.layers = torch.nn.ModuleList(
            weights((rows, HIDDEN), (HIDDEN, HEADS * HEAD), (2 * FFN, HIDDEN), (HIDDEN, FFN)) for _ in range(LAYERS)
        )
        self.table = torch.nn.Parameter(weight(VOCAB, HIDDEN), requires_grad=False)
        for i in range(2 * LAYERS):
            cache = torch.zeros(batch, KV_HEADS, context, HEAD, device=device, dtype=dtype)
            self.register_buffer(f"cache{i}", cache)
            if on_card:
                torch._dynamo.mark_static_address(cache)   # written in place, within a CUDA graph
        self.register_buffer("ones", torch.ones(HIDDEN, device=device, dtype=dtype))

    def forward(self, x, at):
        batch, tokens = x.shape[:2]
        for i, (qkv, out, gate_up, down) in enumerate(self.layers):
            parts = F.linear(F.rms_norm(x, (HIDDEN,), self.ones), qkv).view(batch, tokens, -1, HEAD).transpose(1, 2)
            q, k, v = parts.split([HEADS, KV_HEADS, KV_HEADS], 1)
            keys, values = getattr(self, f"cache{2 * i}"), getattr(self, f"cache{2 * i + 1}")
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            y = F.scaled_dot_product_attention(q, keys, values, enable_gqa=True)
            x = x + F.linear(y.transpose(1, 2).reshape(batch, tokens, -1), out)
            gate, up = F.linear(F.rms_norm(x, (HIDDEN,), self.ones), gate_up).chunk(2, -1)
            x = x + F.linear(F.gelu(gate, approximate="tanh") * up, down)
        return F.linear(x[:, -1], self.table)


def wait():
    if on_card:
        torch.cuda.synchronize()


def milliseconds(work):
    for _ in range(3):
        work()
    times = []
    for _ in range(5):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        times.append((time.perf_counter() - begin) * 1e3)
    return round(statistics.median(times), 3)


def limits():
    n, size = (8192, 1 << 30) if on_card else (256, 1 << 20)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    from_, to = (torch.empty(size, device=device, dtype=torch.uint8) for _ in range(2))
    product, copy = milliseconds(lambda: a @ b), milliseconds(lambda: to.copy_(from_))
    return {"bf16Tflops": round(2 * n**3 / product / 1e9, 1), "copyGBps": round(2 * size / copy / 1e6, 1)}


@torch.inference_mode()
def main():
    card = torch.cuda.get_device_name() if on_card else "cpu"
    results = {"torch": torch.__version__, "card": card, "limits": limits(), "models": []}

    def tell(figures, name, work):
        figures[name] = milliseconds(work)
        print(json.dumps(results), flush=True)

    for compiled in (False, True):
        for tokens in (256, 1024):
            eyes, text = Eyes(), Text(tokens + 128, 1)
            if compiled:
                eyes, text = torch.compile(eyes), torch.compile(text, mode="reduce-overhead")
            picture = weight(tokens, EYES)
            prefix, step = weight(tokens + 8, HIDDEN)[None], weight(1, HIDDEN)[None]
            places, place = torch.arange(tokens + 8, device=device), torch.tensor([tokens + 8], device=device)
            figures = {"compiled": compiled, "imageTokens": tokens}
            results["models"].append(figures)
            tell(figures, "visionMs", lambda: eyes(picture))
            tell(figures, "prefillMs", lambda: text(prefix, places))
            tell(figures, "decodeMs", lambda: text(step, place))
            del eyes, text
            if on_card:
                torch.cuda.empty_cache()


main()
