#pragma once
// Writes a whole PaliGemma of a few thousand random weights: enough to run the engine end to end under sanitizers.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "format/quantize.h"
#include "temporary.h"

namespace pg::test {

struct TinyModel {
  int32_t hidden = 32, ffn = 64, layers = 2, heads = 4, kvHeads = 2, headDim = 16;
  int32_t visionHidden = 32, visionFfn = 48, visionLayers = 2, visionHeads = 2, imageSize = 28, patch = 14;
  int32_t context = 256, window = 8;
  int64_t vocab = 0;   // padded to so many pieces
  bool gemma1 = false;
  float attentionCap = 0, finalCap = 0;   // of Gemma 2; 0: as published
  DType type = DType::f32;   // of matrices whose rows it suits
  // The values of a tensor, row-major, where they are not to be random.
  std::function<std::vector<float>(const std::string& name)> values = {};

  std::string write(const std::string& path) const {
    std::vector<std::string> pieces{"<pad>", "<eos>", "<bos>", "<unk>", "\n"};
    std::vector<int32_t> types{3, 3, 3, 2, 4};
    for (int b = 0; b < 256; ++b) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", b);
      pieces.push_back(name);
      types.push_back(6);
    }
    for (char c = 'a'; c <= 'z'; ++c) pieces.push_back(std::string(1, c)), types.push_back(1);
    pieces.push_back("\xe2\x96\x81"), types.push_back(1);
    pieces.push_back("<image>"), types.push_back(3);
    for (int64_t i = int64_t(pieces.size()); i < vocab; ++i)
      pieces.push_back("<piece" + std::to_string(i) + ">"), types.push_back(4);
    const int64_t pieceCount = int64_t(pieces.size());

    std::string keys, infos, data;
    uint64_t keyCount = 0, tensorCount = 0;
    const auto put = [](std::string& to, const auto& value) {
      to.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const auto text = [&](std::string& to, const std::string& s) {
      put(to, uint64_t(s.size()));
      to += s;
    };
    const auto key = [&](const std::string& name, uint32_t type) {
      ++keyCount;
      text(keys, name);
      put(keys, type);
    };
    const auto u32 = [&](const std::string& name, uint32_t value) {
      key(name, 4);
      put(keys, value);
    };
    const auto f32 = [&](const std::string& name, float value) {
      key(name, 6);
      put(keys, value);
    };
    const auto string = [&](const std::string& name, const std::string& value) {
      key(name, 8);
      text(keys, value);
    };
    uint32_t random = 12345;
    const auto tensor = [&](const std::string& name, std::vector<int64_t> ne, float scale, float offset = 0) {
      ++tensorCount;
      text(infos, name);
      put(infos, uint32_t(ne.size()));
      int64_t n = 1;
      for (int64_t d : ne) put(infos, d), n *= d;
      const bool matrix = ne.size() == 2 && !name.starts_with("v.position");
      const DType as = matrix && ne[0] % dtypeInfo(type)->block == 0 ? type : DType::f32;
      put(infos, uint32_t(as));
      put(infos, uint64_t(data.size()));
      std::vector<float> list = values ? values(name) : std::vector<float>();
      for (int64_t i = 0; i < n && !values; ++i) {
        random = random * 1664525u + 1013904223u;
        list.push_back(offset + scale * (float(random >> 8) / float(1 << 23) - 1));
      }
      const size_t at = data.size(), rowBytes = bytesFor(as, ne[0]);
      data.resize(at + rowBytes * size_t(n / ne[0]));
      for (int64_t row = 0; row < n / ne[0]; ++row)
        quantizeRow(as, list.data() + row * ne[0],
                    reinterpret_cast<uint8_t*>(data.data()) + at + size_t(row) * rowBytes, ne[0]);
      data.resize((data.size() + 31) & ~size_t(31));
    };

    const std::string family = gemma1 ? "gemma." : "gemma2.";
    string("general.architecture", gemma1 ? "gemma" : "gemma2");
    u32(family + "context_length", uint32_t(context));
    u32(family + "embedding_length", uint32_t(hidden));
    u32(family + "block_count", uint32_t(layers));
    u32(family + "feed_forward_length", uint32_t(ffn));
    u32(family + "attention.head_count", uint32_t(heads));
    u32(family + "attention.head_count_kv", uint32_t(kvHeads));
    u32(family + "attention.key_length", uint32_t(headDim));
    u32(family + "attention.value_length", uint32_t(headDim));
    f32(family + "attention.layer_norm_rms_epsilon", 1e-6f);
    if (!gemma1) u32(family + "attention.sliding_window", uint32_t(window));
    if (attentionCap > 0) f32(family + "attn_logit_softcapping", attentionCap);
    if (finalCap > 0) f32(family + "final_logit_softcapping", finalCap);
    u32("clip.vision.image_size", uint32_t(imageSize));
    u32("clip.vision.patch_size", uint32_t(patch));
    u32("clip.vision.embedding_length", uint32_t(visionHidden));
    u32("clip.vision.feed_forward_length", uint32_t(visionFfn));
    u32("clip.vision.block_count", uint32_t(visionLayers));
    u32("clip.vision.attention.head_count", uint32_t(visionHeads));
    string("tokenizer.ggml.model", "llama");
    key("tokenizer.ggml.tokens", 9), put(keys, uint32_t(8)), put(keys, uint64_t(pieceCount));
    for (const auto& p : pieces) text(keys, p);
    key("tokenizer.ggml.scores", 9), put(keys, uint32_t(6)), put(keys, uint64_t(pieceCount));
    for (int64_t i = 0; i < pieceCount; ++i) put(keys, -float(i));
    key("tokenizer.ggml.token_type", 9), put(keys, uint32_t(5)), put(keys, uint64_t(pieceCount));
    for (int32_t t : types) put(keys, t);
    u32("tokenizer.ggml.padding_token_id", 0);
    u32("tokenizer.ggml.eos_token_id", 1);
    u32("tokenizer.ggml.bos_token_id", 2);
    u32("tokenizer.ggml.unknown_token_id", 3);

    tensor("token_embd.weight", {hidden, pieceCount}, 0.3f);
    tensor("output_norm.weight", {hidden}, 0.1f, 1);
    for (int i = 0; i < layers; ++i) {
      const std::string p = "blk." + std::to_string(i) + ".";
      for (const char* norm : {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"})
        if (!gemma1 || std::strncmp(norm, "post", 4) != 0) tensor(p + norm + ".weight", {hidden}, 0.1f, 1);
      tensor(p + "attn_q.weight", {hidden, heads * headDim}, 0.3f);
      tensor(p + "attn_k.weight", {hidden, kvHeads * headDim}, 0.3f);
      tensor(p + "attn_v.weight", {hidden, kvHeads * headDim}, 0.3f);
      tensor(p + "attn_output.weight", {heads * headDim, hidden}, 0.3f);
      tensor(p + "ffn_gate.weight", {hidden, ffn}, 0.3f);
      tensor(p + "ffn_up.weight", {hidden, ffn}, 0.3f);
      tensor(p + "ffn_down.weight", {ffn, hidden}, 0.3f);
    }
    const int32_t side = imageSize / patch;
    tensor("v.patch_embd.weight", {patch, patch, 3, visionHidden}, 0.05f);
    tensor("v.patch_embd.bias", {visionHidden}, 0.1f);
    tensor("v.position_embd.weight", {visionHidden, side * side}, 0.1f);
    for (int i = 0; i < visionLayers; ++i) {
      const std::string p = "v.blk." + std::to_string(i) + ".";
      for (const char* norm : {"ln1", "ln2"})
        tensor(p + norm + ".weight", {visionHidden}, 0.1f, 1), tensor(p + norm + ".bias", {visionHidden}, 0.1f);
      for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_out"})
        tensor(p + name + ".weight", {visionHidden, visionHidden}, 0.2f),
            tensor(p + name + ".bias", {visionHidden}, 0.1f);
      tensor(p + "ffn_up.weight", {visionHidden, visionFfn}, 0.2f), tensor(p + "ffn_up.bias", {visionFfn}, 0.1f);
      tensor(p + "ffn_down.weight", {visionFfn, visionHidden}, 0.2f), tensor(p + "ffn_down.bias", {visionHidden}, 0.1f);
    }
    tensor("v.post_ln.weight", {visionHidden}, 0.1f, 1), tensor("v.post_ln.bias", {visionHidden}, 0.1f);
    tensor("mm.0.weight", {visionHidden, hidden}, 0.2f), tensor("mm.0.bias", {hidden}, 0.1f);

    std::string header = "GGUF";
    put(header, uint32_t(3));
    put(header, tensorCount);
    put(header, keyCount);
    header += keys + infos;
    header.resize((header.size() + 31) & ~size_t(31));
    FILE* file = std::fopen(path.c_str(), "wb");
    if (!file) return "";
    std::fwrite(header.data(), 1, header.size(), file);
    std::fwrite(data.data(), 1, data.size(), file);
    std::fclose(file);
    return path;
  }
};

}  // namespace pg::test
