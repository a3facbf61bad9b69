#include <algorithm>
#include <random>
#include <regex>

#include "check.h"
#include "text/constraint.h"
#include "text/text_constraint.h"
#include "vocabulary.h"

using namespace pg;
using pg::test::Vocabulary;

namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    Vocabulary v;
    v.add({"_cat", "_ca", "at",       "ed", "re", "es", "ye", "no", "_", "a", "b", "c", "d",
           "e",    "n",   "o",        "r",  "s",  "t",  "y",  "\"", ":", "{", "}", ",", "\":",
           ".",    "-",   "\xc3\xa9", "0",  "1",  "2",  "3",  "4",  "5", "6", "7", "8", "9"});
    v.addLocations();
    return v.open();
  }();
  return made;
}

ConstraintSpec choices(std::vector<std::string> list) {
  ConstraintSpec spec;
  spec.kind = ConstraintSpec::Kind::choices;
  spec.choices = std::move(list);
  return spec;
}

std::unique_ptr<Constraint> regex(std::string pattern, ConstraintSpec::Kind kind = ConstraintSpec::Kind::regex) {
  static ConstraintFactory factory(tokenizer());
  ConstraintSpec spec;
  spec.kind = kind;
  spec.pattern = std::move(pattern);
  return factory.make(spec);
}

bool allows(const Constraint& c, int32_t id) {
  const auto ids = c.allowed();
  CHECK(!ids.empty() && std::is_sorted(ids.begin(), ids.end()));
  CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
  return std::binary_search(ids.begin(), ids.end(), id);
}

// Whether some spelling in tokens of the text is allowed to the end: depth first over the pieces.
bool accepts(const std::string& pattern, const std::string& text,
             ConstraintSpec::Kind kind = ConstraintSpec::Kind::regex) {
  const std::function<bool(std::vector<int32_t>&, size_t)> spell = [&](std::vector<int32_t>& ids, size_t at) {
    const auto c = regex(pattern, kind);
    for (const int32_t id : ids) c->accept(id);
    if (at == text.size()) return allows(*c, tokenizer().eos());
    const auto allowed = c->allowed();
    const std::vector<int32_t> list(allowed.begin(), allowed.end());
    for (const int32_t id : list) {
      const std::string_view bytes = tokenizer().pieceBytes(id);
      if (bytes.empty() || text.compare(at, bytes.size(), bytes) != 0) continue;
      ids.push_back(id);
      if (spell(ids, at + bytes.size())) return true;
      ids.pop_back();
    }
    return false;
  };
  std::vector<int32_t> ids;
  return spell(ids, 0);
}

// Random allowed tokens until the end, or until so many: the text.
std::string wander(Constraint& c, std::mt19937& random, size_t most) {
  std::string text;
  for (size_t i = 0; i < most && !c.done(); ++i) {
    const auto allowed = c.allowed();
    CHECK(!allowed.empty());
    const std::vector<int32_t> forced = c.forced();
    if (!forced.empty()) {
      CHECK_EQUAL(allowed.size(), size_t(1));
      CHECK_EQUAL(allowed[0], forced[0]);
    }
    const int32_t id =
        allows(c, tokenizer().eos()) && random() % 4 == 0 ? tokenizer().eos() : allowed[random() % allowed.size()];
    text += tokenizer().pieceBytes(id);
    c.accept(id);
  }
  return text;
}

}  // namespace

TEST(constraint_choices_are_taken_whole) {
  ConstraintFactory factory(tokenizer());
  const auto c = factory.make(choices({"yes", "no", "not a cat"}));
  for (const int32_t id : tokenizer().encode("no")) {
    CHECK(allows(*c, id));
    c->accept(id);
  }
  CHECK(allows(*c, tokenizer().eos()) && c->allowed().size() == 2);   // "no" ends here or goes on to "not"
  c->accept(tokenizer().eos());
  CHECK(c->done());
  CHECK_EQUAL(c->allowed()[0], tokenizer().eos());
}

TEST(constraint_choices_that_differ_early_are_forced_to_the_end) {
  const auto c = ChoiceConstraint(tokenizer(), {"a cat", "red cats"});
  CHECK(c.forced().empty());
  auto first = c;
  first.accept(tokenizer().encode("red cats")[0]);
  std::vector<int32_t> rest = tokenizer().encode("red cats");
  rest.erase(rest.begin());
  rest.push_back(tokenizer().eos());
  CHECK(first.forced() == rest);
  CHECK_FAILS(first.accept(tokenizer().encode("a")[0]), Code::internal, "not allowed");
}

TEST(constraint_choices_must_be_texts) {
  CHECK_FAILS(ChoiceConstraint(tokenizer(), {}), Code::invalidOption, "at least one");
  CHECK_FAILS(ChoiceConstraint(tokenizer(), {"a", ""}), Code::invalidOption, "non-empty");
}

TEST(constraint_regex_accepts_exactly_what_matches) {
  struct Case {
    const char* pattern;
    std::vector<std::string> good, bad;
  };
  const std::vector<Case> cases = {
      {"", {""}, {"a"}},
      {"yes|no", {"yes", "no"}, {"", "y", "yesno", "yes "}},
      {"^a(b|cd)*e?$", {"a", "abe", "acdbcd", "ae"}, {"ac", "b", "aee"}},
      {"[a-c]{2,3}", {"ab", "cab"}, {"a", "abcd", "ad"}},
      {"[^a-c]", {"d", "\xc3\xa9", "\n", "\xf0\x9f\x98\x80"}, {"a", "", "\xc3"}},
      {"a{3}", {"aaa"}, {"aa", "aaaa"}},
      {"a{2,}", {"aa", "aaaaa"}, {"a"}},
      {"(?:a|b)+\\.\\d", {"ab.1"}, {".1", "ab1"}},
      {".", {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}, {"\n", "ab", "\x80", "\xed\xa0\x80"}},
      {"\\x41\\u00e9\\u{20ac}\\ud83d\\ude00\\t", {"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\t"}, {"A"}},
      {"[\\u00e9-\\u{1F600}]",
       {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbf"},
       {"\xc3\xa8", "\xf0\x9f\x98\x81"}},
      {"\\w\\W\\s\\S", {"a- b"}, {"--  ", "aa b"}},
      {"[\\]\\-a]+", {"]-a"}, {"b"}},
      {"[a-]+]", {"a-]"}, {"]"}},
      {"(a*)*b", {"b", "aaab"}, {"a"}},
      {"(a|)(|b)", {"", "a", "b", "ab"}, {"ba"}},
      {"a+?b??", {"a", "aab"}, {"", "abb"}},
      {"(?<first>a|b)c", {"ac", "bc"}, {"c"}},
      {"^a$|^b$", {"a", "b"}, {"ab"}},
      {"(?!ab)[ab]{2}", {"aa", "ba", "bb"}, {"ab", "a"}},
      {"(?=.*b)(?!.*aa)[ab]{1,3}", {"b", "aba", "bab"}, {"a", "baa", "aab", ""}},
      {"^(?!^ab)[ab]{2}", {"aa", "ba"}, {"ab"}},
      {"^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$", {"1", "-0.5", ".5"}, {"", "+", "-.", "a"}},
      {"^^a", {"a"}, {""}},
      {"a(?!b)[ab]*c", {"ac", "aabc"}, {"abc", "c"}},
      {"(a|b(?=c))[cd]", {"ac", "ad", "bc"}, {"bd"}},
      {"\\S", {"x"}, {"\xc2\xa0", " "}},
      {"<loc0[0-9]{3}>", {"<loc0001>", "<loc0999>"}, {"<loc1000>"}},
  };
  for (const Case& c : cases) {
    for (const std::string& text : c.good)
      if (!accepts(c.pattern, text)) throw test::Failure{c.pattern, "refuses \"" + text + "\""};
    for (const std::string& text : c.bad)
      if (accepts(c.pattern, text)) throw test::Failure{c.pattern, "accepts \"" + text + "\""};
  }
}

TEST(constraint_schema_syntax_accepts_exactly_what_matches) {
  struct Case {
    const char* pattern;
    std::vector<std::string> good, bad;
  };
  const std::vector<Case> cases = {
      {"<(?,a?b?c?)>", {"<>", "<a>", "<b>", "<a,c>", "<a,b,c>"}, {"<,a>", "<a,>", "<ab>", "<b,a>", "<a,,b>"}},
      {"(?,a?bc?)", {"b", "a,b", "b,c", "a,b,c"}, {"", "a", "a,c", "ab"}},
      {"(?,ab*)", {"a", "a,b", "a,b,b"}, {"", "b", "a,", "a,a"}},
      {"(?,a*)", {"", "a", "a,a,a"}, {"aa", "a,"}},
      {"(?&(?:[ab]{2,4})(?:.*b)(?:a.*))x", {"abx", "aabx"}, {"bbx", "aax", "ab", "x"}},
      {"\"(?\"(?:[^]{2}))\"", {"\"ab\"", "\"\\\"a\"", "\"\\n\\\\\"", "\"\\u0001a\""}, {"\"a\"", "\"\"a\"", "\"\n\n\""}},
      {"(?&(?:[1-9][0-9]?)(?:(?%7)))", {"7", "14", "98"}, {"0", "8", "07", "700"}},
      {"(?@2:3:x:^ab)", {"ab", "abc"}, {"cab", ""}},
      {"(?@0:2:b$)", {"b", "ab"}, {"ba", ""}},
      {"(?@0:10:^$|(^c|d)e)", {"", "ce", "cex", "xdex"}, {"xce", "ab"}},
  };
  for (const Case& c : cases) {
    for (const std::string& text : c.good)
      if (!accepts(c.pattern, text, ConstraintSpec::Kind::schema))
        throw test::Failure{c.pattern, "refuses \"" + text + "\""};
    for (const std::string& text : c.bad)
      if (accepts(c.pattern, text, ConstraintSpec::Kind::schema))
        throw test::Failure{c.pattern, "accepts \"" + text + "\""};
  }
  CHECK_FAILS(regex("(?@3:2:at a(", ConstraintSpec::Kind::schema), Code::invalidOption, "at A ( without )");
  CHECK_FAILS(regex("(?@4:2:at: a()", ConstraintSpec::Kind::schema), Code::invalidOption,
              "at: A ( without ) at position 1");
  for (const char* pattern : {"(?&)", "x(?\")", "(?\"ab)"})
    CHECK_FAILS(regex(pattern, ConstraintSpec::Kind::schema), Code::invalidOption, "A group without its parts");
  CHECK_FAILS(regex("(?%0)", ConstraintSpec::Kind::schema), Code::invalidOption, "A multiple of 0");
}

TEST(constraint_regex_output_matches_whatever_is_picked) {
  // against the standard library's own regular expressions
  std::mt19937 random(1);
  for (const char* pattern : {"(yes|no)( cats?)?", "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?",
                              "\\{\"a\":(\"[a-e ]{0,5}\"|[0-9]+),\"b\":(true|false)\\}", "([a-c]+ ){1,3}[^a-z0-9]",
                              "cat( [a-z]{2}){2,4}\\.", "((a|b)*c){2}"}) {
    const std::regex expected(pattern);
    int ended = 0;
    for (int round = 0; round < 40; ++round) {
      const auto c = regex(pattern);
      const std::string text = wander(*c, random, 60);
      if (!c->done()) continue;
      ++ended;
      // std::regex counts bytes: let one stand for every other character
      std::string plain;
      for (const char byte : text)
        if ((byte & 0xC0) != 0x80) plain += byte & 0x80 ? '#' : byte;
      if (!std::regex_match(plain, expected)) throw test::Failure{pattern, "does not match \"" + text + "\""};
    }
    CHECK(ended > 10);
  }
}

TEST(constraint_regex_writes_what_has_no_choice_as_the_tokenizer_does) {
  const auto c = regex("yes cat(s|e)");
  std::vector<int32_t> expected = tokenizer().encode("yes cat");
  expected.pop_back();                       // "cat" may merge with what follows
  CHECK(!expected.empty() && c->forced() == expected);
  for (const int32_t id : expected) c->accept(id);
  CHECK(c->forced().empty());

  const auto whole = regex("yes cats");
  for (const int32_t id : tokenizer().encode("yes cats")) {
    CHECK_EQUAL(whole->forced()[0], id);
    whole->accept(id);
  }
  CHECK(whole->forced() == std::vector<int32_t>{tokenizer().eos()});
}

TEST(constraint_regex_cut_within_a_character_goes_on_with_its_bytes) {
  // the vocabulary has no piece for these, only bytes; all begin alike
  const auto c = regex("[\\u{1F600}-\\u{1F64F}]b");
  CHECK(c->forced().size() == 1 || c->allowed().size() == 1);
  std::mt19937 random(3);
  const std::string text = wander(*c, random, 10);
  CHECK(c->done() && text.size() == 5 && text.back() == 'b');
}

TEST(constraint_regex_leaves_control_tokens_out) {
  const auto c = regex("[^x]*");
  for (const int32_t id : {tokenizer().bos(), tokenizer().pad(), tokenizer().unk(), tokenizer().image()})
    CHECK(!allows(*c, id));
  CHECK(allows(*c, tokenizer().eos()));
  CHECK(allows(*c, tokenizer().newline()));
  // of two tokens for one byte only the tokenizer's own
  const int32_t piece = tokenizer().encode("a")[0];
  CHECK(allows(*c, piece));
  for (int32_t id = 0; id < tokenizer().size(); ++id)
    if (id != piece && tokenizer().pieceBytes(id) == "a") CHECK(!allows(*c, id));
}

TEST(constraint_regex_says_what_is_wrong_and_where) {
  struct Case {
    const char *pattern, *message;
  };
  for (const Case& c : std::vector<Case>{
           {"ab(c", "A ( without ) at position 2"},
           {"ab)", "An unmatched ) at position 2"},
           {"a[bc", "A [ without ] at position 1"},
           {"a[]", "matches nothing at position 1"},
           {"*a", "anything to repeat at position 0"},
           {"a**", "anything to repeat at position 2"},
           {"a*?+", "anything to repeat at position 3"},
           {"a{3,2}", "wrong order at position 1"},
           {"a{x}", "position 1"},
           {"a{99999}", "more than 10000"},
           {"(?<=a)b", "lookbehind"},
           {"(?=a)b", "No text matches"},
           {"(?!a)a|b(?!)", "No text matches"},
           {"(?:(?!a).)*", "lookahead within a repetition"},
           {"(?,a)", "A group other than"},
           {"(?@1:1:xa)", "A group other than"},
           {"(a)\\1", "back reference, which is not supported, at position 3"},
           {"\\bcat", "word boundary"},
           {"\\p{L}", "The escape \\p"},
           {"a^b", "A ^ that is not at the start"},
           {"(?!^a)b", "A ^ that is not at the start"},
           {"^a(?!^b)c", "A ^ that is not at the start"},
           {"a$b", "A $ that is not at the end"},
           {"[z-a]", "from a smaller to a larger"},
           {"[a-\\d]", "from a smaller to a larger"},
           {"\\x4", "hexadecimal"},
           {"\\ud800", "no character"},
           {"a\\", "without anything after it"},
           {"\xc3\xa9\xc3\xa9(", "position 2"},
           {"((a{10000}){10000}){10000}", "too large"},
           {"((){10000}){10000}", "too large"},
       })
    CHECK_FAILS(regex(c.pattern), Code::invalidOption, c.message);
  CHECK_FAILS(regex(std::string(100000, '(')), Code::invalidOption, "nested");
}

TEST(constraint_regex_that_explodes_ends_with_an_error) {
  // knows the last 30 letters: 2^30 states
  const auto c = regex("[ab]*a[ab]{30}");
  std::mt19937 random(5);
  const int32_t a = tokenizer().encode("a")[0], b = tokenizer().encode("b")[0];
  bool failed = false;
  try {
    for (int i = 0; i < 1000000; ++i) c->accept(random() % 2 ? a : b);
  } catch (const Error& e) {
    failed = e.code() == Code::invalidOption && e.message().find("too complex") != std::string::npos;
  }
  CHECK(failed);
  // who shares the automaton gets the same error, or goes on within what is known
  const auto other = regex("[ab]*a[ab]{30}");
  try {
    for (int i = 0; i < 2000; ++i) other->accept(i % 3 ? a : b);
  } catch (const Error& e) {
    CHECK(e.code() == Code::invalidOption);
  }
}
