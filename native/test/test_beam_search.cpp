// Beam search against its definition, written as slowly and plainly as can be.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "check.h"
#include "serve/sampling/beam_search.h"
#include "serve/load/model.h"
#include "tiny_gguf.h"

using namespace pg;

namespace {

struct BeamFixture {
  std::string path = test::temporaryPath("beams.gguf");
  std::unique_ptr<Model> model;
  std::vector<int32_t> prompt;

  explicit BeamFixture(std::vector<int32_t> ids) : prompt(std::move(ids)) {
    LoadOptions options;
    options.path = test::TinyModel().write(path);
    options.threads = 2;
    model = Model::load(options);
  }
  ~BeamFixture() {
    model.reset();
    std::remove(path.c_str());
  }
  int64_t prefix() const { return int64_t(prompt.size()); }
  size_t vocab() const { return size_t(model->textConfig.vocab); }

  std::vector<float> prefill(KvSequence& kv) {
    model->decoder->beginPrefill(kv, prompt, {}, prefix(), nullptr);
    while (!model->decoder->stepPrefill()) {}
    std::vector<float> logits(vocab());
    model->decoder->prefillLogits(prefix() - 1, 1, logits.data());
    return logits;
  }
  // log softmax of what follows prompt + tokens, from a cache of its own
  std::vector<double> next(const std::vector<int32_t>& tokens) {
    KvSequence kv(*model->kvPool);
    std::vector<float> logits = prefill(kv);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const DecodeRow row{&kv, tokens[i], prefix() + int64_t(i), prefix()};
      model->decoder->decode({&row, 1}, logits.data());
    }
    double sum = 0;
    const double most = *std::max_element(logits.begin(), logits.end());
    for (const float x : logits) sum += std::exp(double(x) - most);
    std::vector<double> logProbs;
    for (const float x : logits) logProbs.push_back(double(x) - most - std::log(sum));
    return logProbs;
  }
};

struct Hypothesis {
  std::vector<int32_t> tokens;
  double logProb = 0;
  bool ended = false;
};

// Of all continuations of the live hypotheses by one token, the best 2 * width are looked at in order: those that do
// not end live on, up to `width` of them; those that end are done if they are among the best `width`. It is over when
// nothing lives, at maxTokens, or when `width` are done that no live one, at its present length, beats.
Hypothesis reference(BeamFixture& f, size_t width, double penalty, size_t maxTokens,
                     const std::function<bool(int32_t)>& ends) {
  const auto score = [&](const Hypothesis& h) {
    return h.logProb / std::pow(double(h.tokens.size() + h.ended), penalty);
  };
  const auto better = [&](const Hypothesis& a, const Hypothesis& b) { return score(a) > score(b); };
  std::vector<Hypothesis> live{{}}, done;
  for (;;) {
    std::vector<Hypothesis> all;
    for (const Hypothesis& h : live) {
      const std::vector<double> logProbs = f.next(h.tokens);
      for (size_t id = 0; id < logProbs.size(); ++id) {
        Hypothesis longer = h;
        longer.tokens.push_back(int32_t(id));
        longer.logProb += logProbs[id];
        all.push_back(std::move(longer));
      }
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.logProb > b.logProb; });
    live.clear();
    for (size_t rank = 0; rank < 2 * width && live.size() < width; ++rank) {
      Hypothesis& h = all[rank];
      if (!ends(h.tokens.back())) live.push_back(h);
      else if (rank < width) done.push_back({{h.tokens.begin(), h.tokens.end() - 1}, h.logProb, true});
    }
    if (live.empty() || live[0].tokens.size() == maxTokens) break;
    std::stable_sort(done.begin(), done.end(), better);
    if (done.size() > width) done.resize(width);
    if (done.size() == width && score(done.back()) >= score(live[0])) {
      live.clear();
      break;
    }
  }
  done.insert(done.end(), live.begin(), live.end());
  std::stable_sort(done.begin(), done.end(), better);
  return done.front();
}

}  // namespace

TEST(beam_search_finds_what_its_definition_finds) {
  int ended = 0, cut = 0;
  for (const std::vector<int32_t>& prompt :
       {std::vector<int32_t>{2, 10, 20, 30, 40, 4}, {2, 100, 101, 250, 4}, {2, 4}}) {
    BeamFixture f(prompt);
    for (const int width : {2, 3, 5})
      for (const double penalty : {0.0, 1.0, 2.5})
        for (const int32_t every : {3, 17, 1000}) {   // how rare end tokens are
          const std::function<bool(int32_t)> ends = [every](int32_t id) { return id % every == 2; };
          const size_t maxTokens = 5;
          BeamSearch search(width, penalty, int64_t(maxTokens), ends);
          KvSequence kv(*f.model->kvPool);
          search.start(kv, f.prefill(kv));
          while (!search.finished()) {
            std::vector<DecodeRow> rows;
            search.appendRows(rows, f.prefix(), f.prefix());
            std::vector<float> logits(rows.size() * f.vocab());
            f.model->decoder->decode(rows, logits.data());
            search.advance(logits, int64_t(f.vocab()));
          }
          const Hypothesis expected = reference(f, size_t(width), penalty, maxTokens, ends);
          std::vector<int32_t> found;
          double logProb = 0;
          for (const TokenChoice& token : search.best().tokens) {
            found.push_back(token.id);
            logProb += double(token.logProb);
          }
          CHECK(found == expected.tokens);
          CHECK_EQUAL(search.best().ended, expected.ended);
          if (!expected.ended) CHECK_CLOSE(logProb, expected.logProb, 1e-4);
          CHECK_CLOSE(search.best().score,
                      expected.logProb / std::pow(double(expected.tokens.size() + expected.ended), penalty), 1e-4);
          ++(expected.ended ? ended : cut);
        }
  }
  CHECK(ended > 10 && cut > 10);
}
