#include "addon/js_args.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace pg::js {

namespace {

napi_valuetype typeOf(napi_env env, napi_value value) {
  napi_valuetype type;
  check(napi_typeof(env, value, &type));
  return type;
}

std::string readString(napi_env env, napi_value value) {
  size_t length = 0;
  check(napi_get_value_string_utf8(env, value, nullptr, 0, &length));
  std::string text(length, '\0');
  check(napi_get_value_string_utf8(env, value, text.data(), length + 1, &length));
  return text;
}

std::string plain(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", number);
  double back = 0;
  char brief[32];  // the shortest form that still reads back as the same number
  for (int digits = 6; digits < 17; ++digits) {
    std::snprintf(brief, sizeof brief, "%.*g", digits, number);
    if (std::sscanf(brief, "%lf", &back) == 1 && back == number) return brief;
  }
  return text;
}

}  // namespace

bool isUndefined(napi_env env, napi_value value) { return typeOf(env, value) == napi_undefined; }

std::string describe(napi_env env, napi_value value) {
  switch (typeOf(env, value)) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: {
      bool flag = false;
      check(napi_get_value_bool(env, value, &flag));
      return flag ? "true" : "false";
    }
    case napi_number: {
      double number = 0;
      check(napi_get_value_double(env, value, &number));
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
      return plain(number);
    }
    case napi_string: {
      char text[64];
      size_t length = 0;
      check(napi_get_value_string_utf8(env, value, text, sizeof text, &length));
      return '"' + std::string(text, length) + '"' + (length + 4 >= sizeof text ? "..." : "");
    }
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_bigint: return "a bigint";
    default: break;
  }
  bool array = false, typed = false;
  check(napi_is_array(env, value, &array));
  check(napi_is_typedarray(env, value, &typed));
  return array ? "an array" : typed ? "a typed array" : "an object";
}

void failExpected(napi_env env, const std::string& expected, const std::string& name, napi_value received) {
  fail(Code::invalidOption, "Expected ", expected, " for ", name, " but received ", describe(env, received));
}

double number(napi_env env, napi_value value, const std::string& name, double min, double max) {
  double result = 0;
  if (typeOf(env, value) == napi_number) check(napi_get_value_double(env, value, &result));
  else failExpected(env, "number", name, value);
  // the negation also refuses NaN
  if (!(result >= min && result <= max))
    failExpected(env, "number from " + plain(min) + " to " + plain(max), name, value);
  return result;
}

int64_t integer(napi_env env, napi_value value, const std::string& name, int64_t min, int64_t max) {
  double result = 0;
  if (typeOf(env, value) == napi_number) check(napi_get_value_double(env, value, &result));
  else failExpected(env, "integer", name, value);
  if (!(result >= double(min) && result <= double(max)) || result != std::floor(result))
    failExpected(env, "integer from " + std::to_string(min) + " to " + std::to_string(max), name, value);
  return int64_t(result);
}

bool boolean(napi_env env, napi_value value, const std::string& name) {
  bool flag = false;
  if (typeOf(env, value) != napi_boolean) failExpected(env, "boolean", name, value);
  check(napi_get_value_bool(env, value, &flag));
  return flag;
}

std::string string(napi_env env, napi_value value, const std::string& name) {
  if (typeOf(env, value) != napi_string) failExpected(env, "string", name, value);
  return readString(env, value);
}

std::string path(napi_env env, napi_value value, const std::string& name) {
  std::string text = string(env, value, name);
  if (text.empty() || text.find('\0') != std::string::npos) failExpected(env, "path", name, value);
  return text;
}

size_t choice(napi_env env, napi_value value, const std::string& name, std::initializer_list<const char*> choices) {
  std::string expected;
  const std::string text = typeOf(env, value) == napi_string ? readString(env, value) : std::string();
  size_t index = 0;
  for (const char* option : choices) {
    if (text == option) return index;
    expected += (index++ ? ", '" : "'") + std::string(option) + "'";
  }
  failExpected(env, "one of " + expected, name, value);
}

void requireObject(napi_env env, napi_value value, const std::string& name) {
  if (typeOf(env, value) != napi_object) failExpected(env, "object", name, value);
}

napi_value property(napi_env env, napi_value object, const char* name) {
  napi_value value;
  check(napi_get_named_property(env, object, name, &value));
  return value;
}

uint32_t arrayLength(napi_env env, napi_value value, const std::string& name) {
  bool array = false;
  uint32_t length = 0;
  check(napi_is_array(env, value, &array));
  if (!array) failExpected(env, "array", name, value);
  check(napi_get_array_length(env, value, &length));
  return length;
}

napi_value element(napi_env env, napi_value array, uint32_t index) {
  napi_value value;
  check(napi_get_element(env, array, index, &value));
  return value;
}

std::vector<int32_t> integers(napi_env env, napi_value value, const std::string& name, int64_t min, int64_t max) {
  const uint32_t length = arrayLength(env, value, name);
  std::vector<int32_t> list;  // grows with what is there: a sparse array's length is only a claim
  for (uint32_t i = 0; i < length; ++i) {
    const HandleScope scope(env);
    list.push_back(int32_t(integer(env, element(env, value, i), at(name, i), min, max)));
  }
  return list;
}

std::vector<std::string> strings(napi_env env, napi_value value, const std::string& name) {
  const uint32_t length = arrayLength(env, value, name);
  std::vector<std::string> list;
  for (uint32_t i = 0; i < length; ++i) {
    const HandleScope scope(env);
    list.push_back(string(env, element(env, value, i), at(name, i)));
  }
  return list;
}

std::vector<int32_t> maskCodes(napi_env env, napi_value value) {
  const uint32_t length = arrayLength(env, value, "codes");
  if (length != kMaskCodes)
    fail(Code::invalidOption, "Expected ", kMaskCodes, " numbers for codes but received ", length);
  return integers(env, value, "codes", 0, kMaskCodebook - 1);
}

namespace {

// nullptr data and size 0 for an empty or detached array.
void typedArray(napi_env env, napi_value value, const std::string& name, napi_typedarray_type wanted,
                const char* expected, const void** data, size_t* size) {
  bool typed = false;
  check(napi_is_typedarray(env, value, &typed));
  napi_typedarray_type type = napi_int8_array;
  void* memory = nullptr;
  if (typed) check(napi_get_typedarray_info(env, value, &type, size, &memory, nullptr, nullptr));
  if (!typed || type != wanted) failExpected(env, expected, name, value);
  *data = memory;
  if (!memory) *size = 0;
}

}  // namespace

Bytes bytes(napi_env env, napi_value value, const std::string& name) {
  const void* data = nullptr;
  size_t size = 0;
  typedArray(env, value, name, napi_uint8_array, "Uint8Array", &data, &size);
  return {static_cast<const uint8_t*>(data), size};
}

Floats floats(napi_env env, napi_value value, const std::string& name) {
  const void* data = nullptr;
  size_t size = 0;
  typedArray(env, value, name, napi_float32_array, "Float32Array", &data, &size);
  return {static_cast<const float*>(data), size};
}

TensorMap tensorMap(napi_env env, napi_value value, const std::string& name) {
  requireObject(env, value, name);
  napi_value keys;
  check(napi_get_property_names(env, value, &keys));
  TensorMap tensors;
  const uint32_t count = arrayLength(env, keys, name);
  for (uint32_t i = 0; i < count; ++i) {
    const HandleScope scope(env);
    const std::string key = string(env, element(env, keys, i), name);
    std::string label = name;
    label.append("[\"").append(key).append("\"]");
    const napi_value entry = property(env, value, key.c_str());
    requireObject(env, entry, label);
    HostTensor tensor;
    int64_t elements = 1;
    for (const int32_t size : integers(env, property(env, entry, "shape"), label + ".shape", 0, kInt32Max)) {
      tensor.shape.push_back(size);
      if (size > 0 && elements > kMaxSafeInteger / size) fail(Code::invalidOption, label, ".shape is too large");
      elements *= size;
    }
    const Floats data = floats(env, property(env, entry, "data"), label + ".data");
    if (int64_t(data.size) != elements)
      fail(Code::invalidOption, label, ".data holds ", data.size, " values, its shape ", elements);
    tensor.data.assign(data.data, data.data + data.size);
    tensors.emplace(key, std::move(tensor));
  }
  return tensors;
}

AdapterSource adapterSource(napi_env env, napi_value value, const std::string& name) {
  requireObject(env, value, name);
  AdapterSource source;
  source.name = string(env, property(env, value, "name"), name + ".name");
  source.scale = float(number(env, property(env, value, "scale"), name + ".scale", -1e6, 1e6));
  const napi_value file = property(env, value, "path"), tensors = property(env, value, "tensors");
  const bool hasFile = !isUndefined(env, file), hasTensors = !isUndefined(env, tensors);
  if (hasFile == hasTensors) fail(Code::invalidOption, "Expected either path or tensors in ", name);
  if (hasFile) source.path = path(env, file, name + ".path");
  else source.tensors = tensorMap(env, tensors, name + ".tensors");
  return source;
}

namespace {

AddedToken addedToken(napi_env env, napi_value value, const std::string& name) {
  requireObject(env, value, name);
  AddedToken token;
  token.id = int32_t(integer(env, property(env, value, "id"), name + ".id", -1, kInt32Max));
  token.text = string(env, property(env, value, "text"), name + ".text");
  token.control = boolean(env, property(env, value, "special"), name + ".special");
  token.flags = uint8_t(integer(env, property(env, value, "flags"), name + ".flags", 0, kTokenFlags));
  token.from = string(env, property(env, value, "from"), name + ".from");
  return token;
}

}  // namespace

std::vector<AddedToken> addedTokens(napi_env env, napi_value value, const std::string& name) {
  const uint32_t count = arrayLength(env, value, name);
  std::vector<AddedToken> tokens;
  for (uint32_t i = 0; i < count; ++i) {
    const HandleScope scope(env);
    tokens.push_back(addedToken(env, element(env, value, i), at(name, i)));
  }
  return tokens;
}

MaskDecoder::Lookup tensorSource(napi_env env, napi_value value, const std::string& name) {
  const auto tensors = std::make_shared<const TensorMap>(tensorMap(env, value, name));
  return [tensors](std::string_view wanted) {
    const auto found = tensors->find(wanted);
    return found == tensors->end() ? HostTensor{} : found->second;
  };
}

LoadOptions loadOptions(napi_env env, napi_value value) {
  requireObject(env, value, "options");
  // Calls use(value) where the option is given.
  const auto given = [&](const char* name, const auto& use) {
    const napi_value option = property(env, value, name);
    if (!isUndefined(env, option)) use(option);
  };
  LoadOptions options;
  options.path = path(env, property(env, value, "path"), "path");
  given("visionPath", [&](napi_value v) { options.visionPath = path(env, v, "visionPath"); });
  given("maskDecoder", [&](napi_value v) {
    if (typeOf(env, v) == napi_string) options.maskDecoderPath = path(env, v, "maskDecoder");
    else options.maskTensors = tensorSource(env, v, "maskDecoder");
  });
  given("weights", [&](napi_value v) {
    constexpr FileAccess ways[] = {FileAccess::mapped, FileAccess::copy};
    options.weights = ways[choice(env, v, "weights", {"mapped", "copy"})];
  });
  given("device", [&](napi_value v) { options.device = string(env, v, "device"); });
  given("cudaKernels", [&](napi_value v) {
    const Bytes text = bytes(env, v, "cudaKernels");
    options.cudaKernels = std::make_shared<const std::string>(reinterpret_cast<const char*>(text.data), text.size);
  });
  given("isa", [&](napi_value v) { options.isa = string(env, v, "isa"); });
  given("threads", [&](napi_value v) { options.threads = int(integer(env, v, "threads", 1, kMostThreads)); });
  given("contextSize", [&](napi_value v) { options.contextSize = integer(env, v, "contextSize", 1, kInt32Max); });
  given("maxSequences", [&](napi_value v) { options.maxSequences = int(integer(env, v, "maxSequences", 1, 1024)); });
  given("kvCacheType", [&](napi_value v) {
    constexpr DType types[] = {DType::f16, DType::q8_0, DType::f32};
    options.kvCacheType = types[choice(env, v, "kvCacheType", {"f16", "q8_0", "f32"})];
  });
  given("attentionWindow", [&](napi_value v) {
    constexpr AttentionWindow windows[] = {AttentionWindow::none, AttentionWindow::suffix, AttentionWindow::causal};
    options.attentionWindow = windows[choice(env, v, "attentionWindow", {"none", "suffix", "causal"})];
  });
  given("importance", [&](napi_value v) { options.importance = boolean(env, v, "importance"); });
  given("finalSoftcap", [&](napi_value v) { options.finalSoftcap = boolean(env, v, "finalSoftcap"); });
  given("adapters", [&](napi_value v) {
    const uint32_t count = arrayLength(env, v, "adapters");
    for (uint32_t i = 0; i < count; ++i) {
      const HandleScope scope(env);
      options.adapters.push_back(adapterSource(env, element(env, v, i), at("adapters", i)));
    }
  });
  given("tokens", [&](napi_value v) { options.tokens = addedTokens(env, v, "tokens"); });
  return options;
}

}  // namespace pg::js
