// Regular expressions, the compiled form of JSON Schemas, choices and labels as constraints: making them, and walks
// through what they allow.
#include "fuzz.h"
#include "text/constraint.h"
#include "vocabulary.h"

namespace {

pg::Tokenizer made(bool locations) {
  pg::test::Vocabulary vocabulary;
  vocabulary.add({"a", "b", "ab", "1", "10", "_a", "{\"", "\":", "é", ";", "_;", ";_", "_"});
  if (locations) vocabulary.addLocations();
  return vocabulary.open();
}

const pg::Tokenizer& whole() {
  static const pg::Tokenizer tokenizer = made(true);
  return tokenizer;
}

// Of a model that knows no places.
const pg::Tokenizer& plain() {
  static const pg::Tokenizer tokenizer = made(false);
  return tokenizer;
}

// One for all inputs: most of the time would go into its trie, and what it keeps of earlier ones must change nothing.
pg::ConstraintFactory& factoryOf(const pg::Tokenizer& tokenizer) {
  static pg::ConstraintFactory ofWhole(whole()), ofPlain(plain());
  return &tokenizer == &whole() ? ofWhole : ofPlain;
}

pg::ConstraintSpec specOf(pg::fuzz::Input& input) {
  using Kind = pg::ConstraintSpec::Kind;
  constexpr Kind kinds[] = {Kind::regex, Kind::schema, Kind::choices, Kind::detect, Kind::segment};
  pg::ConstraintSpec spec;
  spec.kind = kinds[input.byte() % 5];
  if (spec.kind == Kind::regex || spec.kind == Kind::schema) {
    spec.pattern = input.rest();
    return spec;
  }
  spec.maxObjects = int8_t(input.byte()) % 3;
  auto& list = spec.kind == Kind::choices ? spec.choices : spec.labels;
  while (!input.empty() && list.size() < 8) list.emplace_back(input.line());
  return spec;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 512) return 0;
  pg::fuzz::Input input(data, size);
  const uint8_t first = input.byte();
  const pg::Tokenizer& tokenizer = first == 255 ? plain() : whole();
  uint32_t walk = first * 2654435761u + 1;
  try {
    pg::ConstraintFactory& factory = factoryOf(tokenizer);
    const pg::ConstraintSpec spec = specOf(input);
    factory.make(spec);
    const auto constraint = factory.make(spec);  // by what was kept of the first
    for (int step = 0; step < 64 && !constraint->done(); ++step) {
      const std::span<const int32_t> allowed = constraint->allowed();
      pg::fuzz::must(!allowed.empty(), "something may always come next");
      for (size_t i = 0; i < allowed.size(); ++i)
        pg::fuzz::must(allowed[i] >= 0 && allowed[i] < tokenizer.size() && (i == 0 || allowed[i - 1] < allowed[i]),
                       "what is allowed are ascending ids");
      walk = walk * 1664525u + 1013904223u;
      constraint->forced();
      constraint->accept(allowed[(walk >> 8) % allowed.size()]);
    }
  } catch (const pg::Error&) {
    return 0;
  }
  return 0;
}
