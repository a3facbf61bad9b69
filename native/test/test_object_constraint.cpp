#include <algorithm>

#include "check.h"
#include "text/object_constraint.h"
#include "vocabulary.h"

using namespace pg;
using pg::test::Vocabulary;

namespace {

Vocabulary vocabulary() {
  Vocabulary v;
  v.add({"_;", "at", "_c", "_cat", "og", "_d", "_dog", "_", "a", "c", "t", "d", "o", "g", ";", "s", "<", ">"});
  v.addLocations();
  return v;
}

const Tokenizer& objectTokenizer() {
  static const Tokenizer made = vocabulary().open();
  return made;
}

bool allows(const ObjectConstraint& constraint, int32_t id) {
  const auto ids = constraint.allowed();
  CHECK(!ids.empty() && std::is_sorted(ids.begin(), ids.end()));
  return std::binary_search(ids.begin(), ids.end(), id);
}

// Takes the text's tokens; the number of them that were allowed.
size_t follow(ObjectConstraint& constraint, const std::string& text) {
  size_t taken = 0;
  for (const int32_t id : objectTokenizer().encode(text)) {
    if (!allows(constraint, id)) break;
    constraint.accept(id);
    ++taken;
  }
  return taken;
}

bool accepts(ObjectConstraint& constraint, const std::string& text) {
  return follow(constraint, text) == objectTokenizer().encode(text).size();
}

ConstraintSpec detect(std::vector<std::string> labels, int32_t maxObjects = 0) {
  ConstraintSpec spec;
  spec.kind = ConstraintSpec::Kind::detect;
  spec.labels = std::move(labels);
  spec.maxObjects = maxObjects;
  return spec;
}

const std::string kBox = "<loc0001><loc0002><loc0300><loc0400>";
std::string segs(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "<seg" + std::string(i < 10 ? "00" : "0") + std::to_string(i) + ">";
  return text;
}

}  // namespace

TEST(constraint_allows_objects_with_the_given_labels) {
  ObjectConstraint c(objectTokenizer(), detect({"cat", "dog"}));
  CHECK(accepts(c, kBox + " cat ; " + kBox + " dog"));
  CHECK(allows(c, objectTokenizer().eos()));
  c.accept(objectTokenizer().eos());
  CHECK(c.done());
  CHECK_EQUAL(c.allowed().size(), size_t(1));
  ObjectConstraint other(objectTokenizer(), detect({"cat", "dog"}));
  CHECK(!accepts(other, kBox + " dot"));
}

TEST(constraint_allows_finding_nothing_but_no_text) {
  ObjectConstraint c(objectTokenizer(), detect({"cat"}));
  CHECK(allows(c, objectTokenizer().eos()));
  CHECK(!allows(c, objectTokenizer().encode(" cat")[0]));
  CHECK(!allows(c, objectTokenizer().firstSeg()));
}

TEST(constraint_keeps_the_corners_in_order) {
  const int32_t loc = objectTokenizer().firstLoc();
  ObjectConstraint c(objectTokenizer(), detect({"cat"}));
  CHECK(allows(c, loc) && allows(c, loc + 1022) && !allows(c, loc + 1023));
  c.accept(loc + 1022);  // y0
  CHECK(!allows(c, objectTokenizer().eos()) && !allows(c, loc + 1023));
  c.accept(loc + 7);     // x0
  CHECK_EQUAL(c.allowed().size(), size_t(1));
  CHECK(allows(c, loc + 1023));
  c.accept(loc + 1023);  // y1 > y0
  CHECK(!allows(c, loc + 7) && allows(c, loc + 8) && allows(c, loc + 1023));
  CHECK_FAILS(c.accept(loc + 7), Code::internal, "not allowed");
}

TEST(constraint_asks_for_sixteen_codes_when_segmenting) {
  ConstraintSpec spec = detect({"cat"});
  spec.kind = ConstraintSpec::Kind::segment;
  ObjectConstraint c(objectTokenizer(), spec);
  CHECK(accepts(c, kBox + segs(16) + " cat ; " + kBox + segs(16) + " cat"));
  ObjectConstraint fewer(objectTokenizer(), spec), more(objectTokenizer(), spec);
  CHECK_EQUAL(follow(fewer, kBox + segs(15) + " cat"), size_t(4 + 15));
  CHECK_EQUAL(follow(more, kBox + segs(17)), size_t(4 + 16));
}

TEST(constraint_ends_after_the_last_object) {
  ObjectConstraint c(objectTokenizer(), detect({"cat", "dog"}, 2));
  CHECK(accepts(c, kBox + " cat ; " + kBox + " cat"));
  CHECK_EQUAL(c.allowed().size(), size_t(1));
  CHECK(allows(c, objectTokenizer().eos()));
}

TEST(constraint_knows_the_tokens_without_a_choice) {
  const Tokenizer& t = objectTokenizer();
  ObjectConstraint c(t, detect({"cats"}, 1));
  CHECK(c.forced().empty());
  CHECK(accepts(c, kBox));
  std::vector<int32_t> expected = t.encode(" cats");
  expected.push_back(t.eos());
  CHECK(c.forced() == expected);
  CHECK(!c.done());  // looking does not move
}

TEST(constraint_follows_merges_across_the_end_of_a_label) {
  // "cat ;" ends in one piece "t_;" here, so what follows " ca" depends on whether another object comes
  Vocabulary v;
  v.add({"_;", "t_;", "_c", "_", "a", "c", "t", ";"});
  v.addLocations();
  const Tokenizer t = v.open();
  ObjectConstraint c(t, detect({"cat"}));
  for (const int32_t id : t.encode(kBox + " cat ; " + kBox)) {
    CHECK(allows(c, id));
    c.accept(id);
  }
  for (const int32_t id : t.encode(" cat")) {
    CHECK(allows(c, id));
    c.accept(id);
  }
  CHECK(allows(c, t.eos()));
}

TEST(constraint_without_labels_allows_any_name) {
  ObjectConstraint c(objectTokenizer(), detect({}));
  CHECK(accepts(c, kBox));
  CHECK(!allows(c, objectTokenizer().eos()) && !allows(c, objectTokenizer().firstLoc()) &&
        !allows(c, objectTokenizer().encode(" ;")[0]));
  CHECK(accepts(c, " dogs and cats"));
  CHECK(allows(c, objectTokenizer().eos()));
  CHECK(!allows(c, objectTokenizer().firstLoc()) && !allows(c, objectTokenizer().firstSeg()) &&
        !allows(c, objectTokenizer().newline()));
  CHECK(!allows(c, objectTokenizer().bos()) && !allows(c, objectTokenizer().image()));
  CHECK(accepts(c, " ; " + kBox + " cat"));
}

TEST(constraint_without_labels_keeps_to_the_number_of_objects) {
  ObjectConstraint c(objectTokenizer(), detect({}, 1));
  CHECK(accepts(c, kBox + " cat"));
  CHECK(!allows(c, objectTokenizer().encode(" ;")[0]));
  CHECK(allows(c, objectTokenizer().eos()));
}

TEST(constraint_without_labels_lets_a_mask_go_unnamed) {
  ConstraintSpec spec = detect({});
  spec.kind = ConstraintSpec::Kind::segment;
  ObjectConstraint c(objectTokenizer(), spec);
  CHECK(accepts(c, kBox + segs(16)));
  CHECK(allows(c, objectTokenizer().eos()));
}

TEST(constraint_refuses_what_cannot_be_said) {
  for (const char* label : {"", "  ", "a;b", "<loc0001>", "a\nb"})
    CHECK_FAILS(ObjectConstraint(objectTokenizer(), detect({"cat", label})), Code::invalidOption, "labels");
  CHECK_FAILS(ObjectConstraint(objectTokenizer(), detect({}, -1)), Code::invalidOption, "maxObjects");
  Vocabulary v;
  v.add({"a", "b"});
  const Tokenizer plain = v.open();
  CHECK_FAILS(ObjectConstraint(plain, detect({})), Code::modelUnsupported, "<loc0000>");
}
