// The rules of encoding and decoding on small vocabularies; real ones are compared with the reference in test/native.
#include "check.h"
#include "vocabulary.h"

using namespace pg;
using pg::test::Vocabulary;

namespace {

std::string spell(const Tokenizer& tokenizer, std::string_view text, bool allowControl = false) {
  std::string joined;
  for (const int32_t id : tokenizer.encode(text, allowControl)) {
    if (!joined.empty()) joined += '|';
    const std::string_view piece = tokenizer.pieceText(id);
    for (size_t i = 0; i < piece.size(); ++i) {
      const bool space = piece.compare(i, 3, "\xe2\x96\x81") == 0;
      joined += space ? '_' : piece[i];
      if (space) i += 2;
    }
  }
  return joined;
}

Vocabulary small() {
  Vocabulary v;
  v.add({"at", "_c", "_cat", "ab", "bc", "_", "a", "b", "c", "t", "n", "<", ">"});
  v.addLocations();
  return v;
}

std::string decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  return tokenizer.decode(ids.data(), ids.size());
}

}  // namespace

TEST(tokenizer_merges_by_score_and_leftmost_first) {
  const Tokenizer t = small().open();
  CHECK_EQUAL(spell(t, "cat cat"), std::string("c|at|_cat"));
  CHECK_EQUAL(spell(t, "abc"), std::string("ab|c"));
  CHECK_EQUAL(spell(t, "aab"), std::string("a|ab"));
  CHECK_EQUAL(spell(t, ""), std::string());
}

TEST(tokenizer_merges_across_spaces_where_a_piece_does) {
  Vocabulary v;
  v.add({"b_", "b_a", "_a", "_", "a", "b"});
  const Tokenizer t = v.open();
  CHECK_EQUAL(spell(t, "ab a"), std::string("a|b_a"));
}

TEST(tokenizer_takes_user_defined_pieces_first_and_longest) {
  const Tokenizer t = small().open();
  CHECK_EQUAL(spell(t, "\n\n\n"), std::string("\n\n|\n"));
  CHECK_EQUAL(spell(t, "a   a"), std::string("a|__|_|a"));
  CHECK_EQUAL(spell(t, "<loc0007>cat<seg127>"), std::string("<loc0007>|c|at|<seg127>"));
  CHECK_EQUAL(t.encode("<loc1023>")[0], t.firstLoc() + 1023);
  // only the exact spelling is a location
  CHECK(t.encode("<loc1024>").size() > 1);
  CHECK_EQUAL(t.newline(), 4);
}

TEST(tokenizer_falls_back_to_bytes) {
  const Tokenizer t = small().open();
  CHECK_EQUAL(spell(t, "a\xc3\xa9"), std::string("a|<0xC3>|<0xA9>"));
  CHECK_EQUAL(decode(t, t.encode("a\xc3\xa9\t\xf0\x9f\x98\x80 n")), std::string("a\xc3\xa9\t\xf0\x9f\x98\x80 n"));
  // the spelling of a byte piece is text
  CHECK_EQUAL(decode(t, t.encode("<0x41>")), std::string("<0x41>"));
  CHECK_EQUAL(spell(t, "\xff"), std::string("<0xFF>"));
}

TEST(tokenizer_reads_control_spellings_as_text_unless_asked) {
  const Tokenizer t = small().open();
  for (const char* text : {"<bos>", "<eos>", "<pad>", "<unk>", "<image>"}) {
    const auto plain = t.encode(text), control = t.encode(text, true);
    CHECK(plain.size() > 1);
    for (const int32_t id : plain) CHECK(id > 3 && id != t.image());
    CHECK_EQUAL(decode(t, plain), std::string(text));
    CHECK_EQUAL(control.size(), size_t(1));
    CHECK(control[0] <= 3 || control[0] == t.image());
  }
}

TEST(tokenizer_never_makes_control_tokens_of_text_whatever_the_file_calls_them) {
  Vocabulary v = small();
  for (auto& piece : v.pieces)
    if (piece.type == 3) piece.type = 4;
  const Tokenizer t = v.open();
  CHECK(t.encode("<bos>").size() > 1);
  CHECK(t.encode("<image>").size() > 1);
  CHECK_EQUAL(t.encode("<bos>", true)[0], t.bos());
}

TEST(tokenizer_finds_user_defined_pieces_that_a_converter_wrote_as_normal) {
  const Tokenizer expected = small().open();
  Vocabulary v = small();
  for (auto& piece : v.pieces)
    if (piece.type == 4) piece.type = 1;
  const Tokenizer t = v.open();
  for (const char* text : {"\n\n\ncat", "a   at", "<loc0007><seg003>at", "cat cat"})
    CHECK_EQUAL(spell(t, text), spell(expected, text));
  for (auto& piece : v.pieces)
    if (piece.text.substr(0, 4) == "<loc") piece.type = 3;
  CHECK_EQUAL(v.open().encode("<loc0001>")[0], expected.firstLoc() + 1);
}

TEST(tokenizer_decodes_control_tokens_to_nothing_and_unknown_ids_too) {
  const Tokenizer t = small().open();
  CHECK_EQUAL(decode(t, {2, 0, 1, t.image(), -1, 1 << 30}), std::string());
  CHECK_EQUAL(decode(t, {3}), std::string(" \xe2\x81\x87 "));
  CHECK(t.isEndOfGeneration(1));
  CHECK(!t.isEndOfGeneration(-1));
}

TEST(tokenizer_knows_a_further_end_token) {
  Vocabulary v = small();
  v.ids.push_back({"eot", 6});
  const Tokenizer t = v.open();
  CHECK(t.isEndOfGeneration(1) && t.isEndOfGeneration(6) && !t.isEndOfGeneration(4));
}

TEST(tokenizer_names_the_key_that_is_wrong) {
  for (const char* key : {"model", "tokens", "scores", "token_type"}) {
    Vocabulary v = small();
    v.leaveOut = key;
    CHECK_FAILS(v.open(), Code::modelInvalid, std::string("tokenizer.ggml.") + key);
  }
  Vocabulary v = small();
  v.model = "gpt2";
  CHECK_FAILS(v.open(), Code::modelUnsupported, "gpt2");
  v = small();
  v.scoresMissing = 1;
  CHECK_FAILS(v.open(), Code::modelInvalid, "tokenizer.ggml.scores has");
  v = small();
  v.ids[1].second = 1u << 30;
  CHECK_FAILS(v.open(), Code::modelInvalid, "tokenizer.ggml.eos_token_id");
  v = small();
  v.pieces[10].text = "<0xZZ>";
  CHECK_FAILS(v.open(), Code::modelInvalid, "tokenizer.ggml.tokens[10]");
  v = small();
  v.pieces[10].type = 9;
  CHECK_FAILS(v.open(), Code::modelInvalid, "tokenizer.ggml.token_type[10]");
  v = small();
  v.pieces[300].score = NAN;
  CHECK_FAILS(v.open(), Code::modelInvalid, "tokenizer.ggml.scores[300]");
}

TEST(utf8_stream_never_shows_half_a_character) {
  Utf8Stream s;
  CHECK_EQUAL(s.push("a\xf0\x9f"), std::string("a"));
  CHECK_EQUAL(s.push("\x98"), std::string());
  CHECK_EQUAL(s.push("\x80!"), std::string("\xf0\x9f\x98\x80!"));
  CHECK_EQUAL(s.push("\xe2\x82"), std::string());
  CHECK_EQUAL(s.flush(), std::string("\xef\xbf\xbd"));
  CHECK_EQUAL(s.flush(), std::string());
}

TEST(utf8_stream_replaces_each_maximal_invalid_part) {
  const std::string bad = "\xef\xbf\xbd";
  const auto all = [](std::string_view bytes) {
    Utf8Stream s;
    std::string text = s.push(bytes);
    return text + s.flush();
  };
  CHECK_EQUAL(all("\xe2\x82x"), bad + "x");
  CHECK_EQUAL(all("\xc0\xaf"), bad + bad);               // overlong
  CHECK_EQUAL(all("\xed\xa0\x80"), bad + bad + bad);     // surrogate
  CHECK_EQUAL(all("\xed\xa0"), bad + bad);
  CHECK_EQUAL(all("\xf4\x90\x80\x80"), bad + bad + bad + bad);
  CHECK_EQUAL(all("\xf0\x9f\x98\xe2\x82\xac"), bad + "\xe2\x82\xac");
}
