// GGUF reader against files and expectations of an independent generator (golden/gguf), and against broken files.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>

#include "format/gguf.h"
#include "format/quantize.h"
#include "golden.h"

using namespace pg;
using namespace pg::test;

namespace {

constexpr GgufType typeOf(const std::string& name) {
  const char* names[] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                         "bool",  "string", "array",  "uint64", "int64",  "float64"};
  for (uint32_t i = 0; i < std::size(names); ++i)
    if (name == names[i]) return GgufType(i);
  throw Failure{name, "unknown type name in the reference data"};
}

double expectedNumber(const Json& j) {
  if (j.type == Json::Type::number) return j.number;
  if (j.text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (j.text == "Infinity") return std::numeric_limits<double>::infinity();
  if (j.text == "-Infinity") return -std::numeric_limits<double>::infinity();
  CHECK_EQUAL(j.text, std::string("-0"));
  return -0.0;
}

bool sameNumber(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

// Integers as decimal text, so that 64 bits compare exactly.
std::string decimal(GgufType type, int64_t i) {
  return type == GgufType::u64 ? std::to_string(uint64_t(i)) : std::to_string(i);
}

void checkArray(const GgufArray& array, const Json& expected) {
  CHECK(array.elementType == typeOf(expected["array_of"].text));
  const Json& values = expected["value"];
  CHECK_EQUAL(array.count, values.size());
  if (array.elementType == GgufType::string) {
    const auto strings = array.strings();
    for (size_t i = 0; i < values.size(); ++i) CHECK_EQUAL(strings[i], std::string_view(values[i].text));
  } else if (array.elementType == GgufType::array) {
    const auto arrays = array.arrays();
    for (size_t i = 0; i < values.size(); ++i) checkArray(arrays[i], values[i]);
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      const Json& value = values[i];
      if (array.elementType == GgufType::f32 || array.elementType == GgufType::f64)
        CHECK(sameNumber(array.number(i), expectedNumber(value)));
      else if (array.elementType == GgufType::boolean) CHECK_EQUAL(array.integer(i) == 1, value.boolean);
      else CHECK_EQUAL(decimal(array.elementType, array.integer(i)), value.text);
    }
  }
}

void checkValue(const GgufValue& value, const Json& expected) {
  if (expected.has("array_of")) return checkArray(std::get<GgufArray>(value.value), expected);
  CHECK(value.type == typeOf(expected["type"].text));
  const Json& j = expected["value"];
  if (const auto* u = std::get_if<uint64_t>(&value.value)) CHECK_EQUAL(std::to_string(*u), j.text);
  else if (const auto* i = std::get_if<int64_t>(&value.value)) CHECK_EQUAL(std::to_string(*i), j.text);
  else if (const auto* f = std::get_if<double>(&value.value)) CHECK(sameNumber(*f, expectedNumber(j)));
  else if (const auto* b = std::get_if<bool>(&value.value)) CHECK_EQUAL(*b, j.boolean);
  else CHECK_EQUAL(std::get<std::string_view>(value.value), std::string_view(j.text));
}

void checkFile(const std::string& name) {
  const std::string path = golden("gguf/" + name + ".gguf");
  if (path.empty()) return;
  const Json expected = readJson(golden("gguf/" + name + ".expected.json"));
  const auto file = GgufFile::open(path);
  CHECK_EQUAL(file->version(), uint32_t(expected["version"].number));
  CHECK_EQUAL(file->alignment(), uint64_t(expected["alignment"].number));
  const Json& keys = expected["kv"];
  CHECK_EQUAL(file->metadata().size(), keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    CHECK_EQUAL(file->metadata()[i].first, std::string_view(keys[i]["key"].text));
    checkValue(file->metadata()[i].second, keys[i]);
    CHECK(file->find(keys[i]["key"].text) == &file->metadata()[i].second);
  }
  const Json& tensors = expected["tensors"];
  CHECK_EQUAL(file->tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufTensor& t = file->tensors()[i];
    const Json& e = tensors[i];
    CHECK_EQUAL(t.name, std::string_view(e["name"].text));
    CHECK(file->findTensor(t.name) == &t);
    CHECK_EQUAL(uint32_t(t.type), uint32_t(e["ggml_type"].number));
    CHECK_EQUAL(t.dims, e["ne"].size());
    for (size_t d = 0; d < 4; ++d) CHECK_EQUAL(t.ne[d], d < t.dims ? int64_t(e["ne"][d].number) : 1);
    CHECK_EQUAL(t.bytes, uint64_t(e["nbytes"].number));
    if (e.has("absolute_offset")) CHECK_EQUAL(t.offset, uint64_t(e["absolute_offset"].number));
    if (e.has("hex_first_16")) {
      std::string hex;
      for (size_t b = 0; b < std::min<size_t>(16, t.bytes); ++b) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", file->view(t).data[b]);
        hex += digits;
      }
      CHECK_EQUAL(hex, e["hex_first_16"].text);
    }
  }
}

// Reads everything a reader may touch; the sanitizer says whether it stays in the map.
void touchAll(const GgufFile& file) {
  volatile uint64_t sink = 0;
  const auto walk = [&](const auto& self, const GgufArray& a) -> void {
    if (a.elementType == GgufType::string) {
      for (const auto s : a.strings())
        for (const char c : s) sink = sink + uint8_t(c);
    } else if (a.elementType == GgufType::array) {
      for (const auto& inner : a.arrays()) self(self, inner);
    } else {
      for (uint64_t i = 0; i < a.count; ++i) sink = sink + (a.number(i) > 0);
    }
  };
  for (const auto& [key, value] : file.metadata()) {
    for (const char c : key) sink = sink + uint8_t(c);
    if (const auto* a = std::get_if<GgufArray>(&value.value)) walk(walk, *a);
    if (const auto* s = std::get_if<std::string_view>(&value.value))
      for (const char c : *s) sink = sink + uint8_t(c);
  }
  for (const auto& t : file.tensors()) {
    const ConstHostView view = file.view(t);
    CHECK_EQUAL(view.bytes(), t.bytes);
    for (size_t i = 0; i < t.bytes; ++i) sink = sink + view.data[i];
    try {
      file.checkFinite(t);
    } catch (const Error& e) {
      CHECK(e.code() == Code::modelInvalid);
    }
  }
}

enum class Outcome { read, rejected };

Outcome tryFile(const std::string& path) {
  try {
    touchAll(*GgufFile::open(path));
    return Outcome::read;
  } catch (const Error& e) {
    CHECK_EQUAL(std::string(codeName(e.code())), std::string("ERR_MODEL_INVALID"));
    CHECK_EQUAL(e.message().find(path), size_t(0));
    CHECK(e.message().size() > path.size() + 20 && e.message().size() < path.size() + 600);
    return Outcome::rejected;
  }
}

std::string messageOf(const std::string& file) {
  try {
    GgufFile::open(golden("gguf/bad/" + file));
  } catch (const Error& e) {
    return e.message();
  }
  return "(no error)";
}

void checkMentions(const std::string& file, std::initializer_list<const char*> parts) {
  const std::string message = messageOf(file);
  for (const char* part : parts)
    if (message.find(part) == std::string::npos) throw Failure{file, "\"" + message + "\" lacks \"" + part + "\""};
}

}  // namespace

TEST(gguf_metadata_and_tensors_match_the_reference) { checkFile("meta"); }
TEST(gguf_arrays_of_arrays_are_read) { checkFile("meta_nested"); }
TEST(gguf_version_2_is_read) { checkFile("meta_v2"); }
TEST(gguf_header_without_content_is_read) { checkFile("meta_empty"); }

TEST(gguf_bad_files_are_rejected_with_their_path) {
  const std::string index = golden("gguf/bad/index.json");
  if (index.empty()) return;
  for (const Json& entry : readJson(index).items) {
    const std::string file = entry["file"].text;
    const Outcome outcome = tryFile(golden("gguf/bad/" + file));
    if (entry["expect"].text == "error" && outcome == Outcome::read)
      throw Failure{file, "was read: " + entry["what"].text};
    if (entry["expect"].text == "bad_values" && outcome == Outcome::rejected)
      throw Failure{file, "the structure is valid"};
  }
}

TEST(gguf_errors_name_the_problem_and_where_it_is) {
  if (golden("gguf/bad").empty()) return;
  checkMentions("trunc_000.gguf", {"0 bytes", "incomplete"});
  checkMentions("trunc_067.gguf", {"general.architecture", "incomplete"});
  checkMentions("data_short_1.gguf", {"ends at byte 256", "1 bytes are missing", "download is incomplete"});
  checkMentions("magic_safetensors.gguf", {"safetensors", "convert"});
  checkMentions("lfs_pointer.gguf", {"git lfs pull"});
  checkMentions("html.gguf", {"HTML"});
  checkMentions("magic_ggml.gguf", {"old GGML"});
  checkMentions("big_endian.gguf", {"big-endian", "0x3000000"});
  checkMentions("version_1.gguf", {"version 1", "byte 4"});
  checkMentions("n_kv_2pow40.gguf", {"1099511627776 metadata keys", "byte 16"});
  checkMentions("array_nested_20000.gguf", {"nested more than"});
  checkMentions("align_24.gguf", {"general.alignment", "power of two", "24"});
  checkMentions("key_empty.gguf", {"key 0", "byte 24", "empty"});
  checkMentions("key_duplicate.gguf", {"occurs twice", "byte "});
  checkMentions("type_4.gguf", {"Q4_2", "at byte "});
  checkMentions("row_k_not_256.gguf", {"rows of 128", "Q4_K", "256"});
  checkMentions("offset_unaligned.gguf", {"offset 132", "alignment 32"});
  checkMentions("offset_overlap.gguf", {"overlap at byte"});
  checkMentions("dims_2pow40.gguf", {"bytes are missing"});
}

TEST(gguf_validation_finds_values_that_are_not_finite) {
  if (golden("gguf/bad").empty()) return;
  const std::pair<const char*, const char*> cases[] = {
      {"q8_0_scale_nan", "NaN"}, {"q8_0_scale_inf", "in"}, {"f32_nan", "NaN"}, {"f16_inf", "infinity"}};
  for (const auto& [name, what] : cases) {
    const auto file = GgufFile::open(golden(std::string("gguf/bad/") + name + ".gguf"));
    int found = 0;
    for (const auto& t : file->tensors()) {
      try {
        file->checkFinite(t);
      } catch (const Error& e) {
        ++found;
        CHECK(e.code() == Code::modelInvalid);
        CHECK(e.message().find(what) != std::string::npos && e.message().find(t.name) != std::string::npos);
      }
    }
    CHECK_EQUAL(found, 1);
  }
}

TEST(gguf_good_file_cut_at_any_byte_is_rejected) {
  const std::string path = golden("gguf/good_base.gguf");
  if (path.empty()) return;
  const std::string whole = readFile(path);
  CHECK(tryFile(path) == Outcome::read);
  const auto file = GgufFile::open(path);
  uint64_t end = 0;
  for (const auto& t : file->tensors()) end = std::max(end, t.offset + t.bytes);
  const TemporaryFile cut("");
  for (size_t size = 0; size < end; ++size) {
    cut.write(whole.substr(0, size));
    if (tryFile(cut.path()) == Outcome::read)
      throw Failure{path, "was read when cut after " + std::to_string(size) + " bytes"};
  }
}

TEST(gguf_good_file_with_one_changed_byte_never_crashes) {
  const std::string path = golden("gguf/good_base.gguf");
  if (path.empty()) return;
  std::string bytes = readFile(path);
  const TemporaryFile changed("");
  int read = 0, rejected = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char kept = bytes[i];
    for (const int flip : {0x01, 0x80, 0xff}) {
      bytes[i] = char(kept ^ flip);
      changed.write(bytes);
      ++(tryFile(changed.path()) == Outcome::read ? read : rejected);
    }
    bytes[i] = kept;
  }
  CHECK(read > 0);
  CHECK(rejected > 0);
}

TEST(gguf_typed_access_gives_nothing_for_missing_keys_and_fails_for_other_types) {
  const std::string path = golden("gguf/meta.gguf");
  if (path.empty()) return;
  const auto file = GgufFile::open(path);
  CHECK(!file->integer("no.such.key") && !file->number("no.such.key") && !file->boolean("no.such.key"));
  CHECK(!file->string("no.such.key") && !file->array("no.such.key"));
  CHECK_EQUAL(*file->integer("general.alignment"), 64);
  CHECK_EQUAL(*file->number("general.alignment"), 64.0);
  CHECK_EQUAL(*file->string("general.architecture"), std::string_view("torture"));
  CHECK_EQUAL(file->array("array.uint8")->integer(4), 183);
  CHECK_FAILS(file->integer("general.architecture"), Code::modelInvalid, "\"general.architecture\"");
  CHECK_FAILS(file->boolean("general.alignment"), Code::modelInvalid, "must be a bool but has type u32");
  CHECK_FAILS(file->string("array.uint8"), Code::modelInvalid, "must be a string");
  CHECK_FAILS(file->array("general.alignment"), Code::modelInvalid, "must be an array");
  CHECK_FAILS(file->array("array.uint8")->strings(), Code::modelInvalid, "read as strings");
  CHECK_FAILS(file->array("array.string")->integer(0), Code::modelInvalid, "read as integers");
}

TEST(gguf_missing_file_and_directory_say_what_to_do) {
  CHECK_FAILS(GgufFile::open("/no/such/folder/model.gguf"), Code::modelNotFound,
              "/no/such/folder/model.gguf: no such file");
  const std::string folder = std::filesystem::temp_directory_path().string();
  CHECK_FAILS(GgufFile::open(folder), Code::modelNotFound, "is a directory");
  CHECK_FAILS(GgufFile::open(""), Code::modelNotFound, "empty");
}

#ifndef _WIN32
TEST(mapped_file_that_is_cut_reads_as_zeros) {
  const TemporaryFile file(std::string(100000, 'x'));
  const MappedFile map(file.path()), copy(file.path(), FileAccess::copy);
  CHECK(map.change().empty());
  std::filesystem::resize_file(file.path(), 10000);
  CHECK_EQUAL(int(map.data()[99999]), 0);
  CHECK_EQUAL(int(map.data()[0]), int('x'));
  CHECK_FAILS(map.throwIfChanged(), Code::modelChanged, "10000 bytes now, not 100000");
  std::filesystem::resize_file(file.path(), 100000);
  CHECK_FAILS(map.throwIfChanged(), Code::modelChanged, "it was written to");
  copy.release(0, 100000);
  CHECK_EQUAL(int(copy.data()[99999]), int('x'));
  CHECK(copy.change().empty());
}

TEST(gguf_metadata_stays_when_the_file_is_cut) {
  const std::string path = golden("gguf/meta.gguf");
  if (path.empty()) return;
  std::ifstream in(path, std::ios::binary);
  const TemporaryFile copy(std::string(std::istreambuf_iterator<char>(in), {}));
  const auto file = GgufFile::open(copy.path());
  std::filesystem::resize_file(copy.path(), 0);
  CHECK_EQUAL(*file->string("general.architecture"), std::string_view("torture"));
  CHECK_EQUAL(file->array("array.uint8")->integer(4), 183);
  CHECK_FAILS(file->throwIfChanged(), Code::modelChanged, "0 bytes now");
}
#endif

TEST(mapped_file_pages_come_back_after_release) {
  const TemporaryFile file(std::string(100000, 'x'));
  const MappedFile map(file.path());
  CHECK_EQUAL(map.size(), size_t(100000));
  map.adviseSequential();
  map.release(10, 99000);
  map.release(99999, 1 << 20);
  map.release(size_t(-1), size_t(-1));
  for (size_t i = 0; i < map.size(); ++i) CHECK(map.data()[i] == 'x');
}
