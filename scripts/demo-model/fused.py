"""The decoder's element-wise work in C++ (fused.cpp), for a PyTorch that has no compiler of its own.

`use()` puts it in the place of model.py's functions. It needs a C++ compiler and PyTorch's headers (Debian:
libtorch-dev), and builds for a minute or two the first time.
"""

import os

import torch
from torch.utils import cpp_extension

import model as M

native = None


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        x = x.contiguous()
        y, scales = native.norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scales)
        return y

    @staticmethod
    def backward(ctx, grad):
        return *native.norm_back(grad.contiguous(), *ctx.saved_tensors), None


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return native.gate(a, b)

    @staticmethod
    def backward(ctx, grad):
        return tuple(native.gate_back(grad.contiguous(), *ctx.saved_tensors))


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, sees, queries, start, scale, cap):
        weights, bent = native.attend(scores, sees, queries, start, scale, cap)
        ctx.scale = scale
        ctx.save_for_backward(weights, bent)
        return weights

    @staticmethod
    def backward(ctx, grad):
        return native.attend_back(grad.contiguous(), *ctx.saved_tensors, ctx.scale), None, None, None, None, None


def use():
    global native
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp"]
    native = cpp_extension.load("fused", [os.path.join(os.path.dirname(os.path.abspath(__file__)), "fused.cpp")],
                                extra_cflags=flags, extra_ldflags=["-lmvec", "-lm"])
    M.rms_norm, M.gated, M.attention_weights = Norm.apply, Gate.apply, Attend.apply
