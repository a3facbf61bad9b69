#pragma once
// JavaScript arguments to C++ values. Everything is copied before the JavaScript thread is left: pixels too, since a
// user may edit, detach or resize the buffer meanwhile. Wrong values fail with invalidOption, naming the argument.
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "addon/js.h"
#include "serve/engine.h"

namespace pg::js {

inline constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
inline constexpr int64_t kMostThreads = 1024;
inline constexpr int64_t kMaxSafeInteger = (int64_t(1) << 53) - 1;

bool isUndefined(napi_env env, napi_value value);

// What an error message says was received: `a string`, `0`, `null`, ...
std::string describe(napi_env env, napi_value value);

[[noreturn]] void failExpected(napi_env env, const std::string& expected, const std::string& name, napi_value received);

int64_t integer(napi_env env, napi_value value, const std::string& name, int64_t min, int64_t max);
double number(napi_env env, napi_value value, const std::string& name, double min, double max);
bool boolean(napi_env env, napi_value value, const std::string& name);
std::string string(napi_env env, napi_value value, const std::string& name);
std::string path(napi_env env, napi_value value, const std::string& name);  // neither empty nor with a NUL
// One of `choices`; returns its index.
size_t choice(napi_env env, napi_value value, const std::string& name, std::initializer_list<const char*> choices);

// "images[2]"
inline std::string at(const std::string& name, size_t index) { return name + "[" + std::to_string(index) + "]"; }

void requireObject(napi_env env, napi_value value, const std::string& name);
napi_value property(napi_env env, napi_value object, const char* name);
// Calls use(value) where the property is there.
template <class Use>
void given(napi_env env, napi_value object, const char* name, const Use& use) {
  const napi_value value = property(env, object, name);
  if (!isUndefined(env, value)) use(value);
}
uint32_t arrayLength(napi_env env, napi_value value, const std::string& name);
napi_value element(napi_env env, napi_value array, uint32_t index);

std::vector<int32_t> integers(napi_env env, napi_value value, const std::string& name, int64_t min, int64_t max);
std::vector<std::string> strings(napi_env env, napi_value value, const std::string& name);

// 16 codes in 0..127.
std::vector<int32_t> maskCodes(napi_env env, napi_value value);

// The memory of a Uint8Array (Buffer) or Float32Array, valid until JavaScript runs again.
struct Bytes {
  const uint8_t* data;
  size_t size;
};
struct Floats {
  const float* data;
  size_t size;
};
Bytes bytes(napi_env env, napi_value value, const std::string& name);
Floats floats(napi_env env, napi_value value, const std::string& name);

// NativeTensorSource and NativeAdapter of lib/engine/native.ts.
TensorMap tensorMap(napi_env env, napi_value value, const std::string& name);
AdapterSource adapterSource(napi_env env, napi_value value, const std::string& name);
MaskDecoder::Lookup tensorSource(napi_env env, napi_value value, const std::string& name);

// NativeAddedToken[] of lib/engine/native.ts.
std::vector<AddedToken> addedTokens(napi_env env, napi_value value, const std::string& name);

LoadOptions loadOptions(napi_env env, napi_value value);
// `info`: what the model accepts, to refuse wrong sizes before copying them.
Request request(napi_env env, napi_value value, const ModelInfo& info);

}  // namespace pg::js
