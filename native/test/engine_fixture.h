#pragma once
// A tiny model in an engine, and what its requests have said.
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>

#include "serve/engine.h"
#include "tiny_gguf.h"

namespace pg::test {

// Collects events; wait() blocks until a job ended (0: until the model is ready or failed).
struct Listener {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<uint32_t, std::vector<Event>> events;
  std::vector<uint32_t> started, ended;   // jobs, in the order of their first and last events
  bool stopped = false;

  void post(Event event) {
    std::lock_guard lock(mutex);
    if (event.job > 0 && events[event.job].empty()) started.push_back(event.job);
    if (event.is<EndEvent>() || event.is<ErrorEvent>()) ended.push_back(event.job);
    if (event.is<StoppedEvent>()) stopped = true;
    else events[event.job].push_back(std::move(event));
    changed.notify_all();
  }
  std::vector<Event> wait(uint32_t job) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !events[job].empty() && !events[job].back().is<TokenEvent>(); });
    return events[job];
  }
  void waitForToken(uint32_t job) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !events[job].empty(); });
  }
};

// Of a job's last event.
inline const EndEvent& endOf(const std::vector<Event>& events) { return std::get<EndEvent>(events.back().what); }
inline Code codeOf(const Event& event) {
  const ErrorEvent* error = event.get<ErrorEvent>();
  return error ? error->code : Code::internal;
}

struct EngineFixture {
  Listener listener;
  std::string path = test::temporaryPath("engine.gguf");
  std::unique_ptr<Engine> engine;
  size_t pictureBytes;

  explicit EngineFixture(LoadOptions options = {}, const TinyModel& tiny = {})
      : pictureBytes(size_t(tiny.imageSize * tiny.imageSize * 3)) {
    options.path = tiny.write(path);
    if (options.threads == 0) options.threads = 2;
    engine = std::make_unique<Engine>(options, [this](Event e) { listener.post(std::move(e)); });
    listener.wait(0);
  }
  ~EngineFixture() {
    engine.reset();
    std::remove(path.c_str());
  }

  Request request(const std::string& prompt, int64_t maxTokens = 12, int images = 1) {
    Request r;
    r.prompt = prompt;
    r.generate().maxTokens = maxTokens;
    r.generate().ignoreEos = true;
    r.generate().sampling.logProbs = 0;
    for (int i = 0; i < images; ++i) {
      ImageSource image;
      for (size_t p = 0; p < pictureBytes; ++p) image.pixels.push_back(uint8_t(p * size_t(i + 7) % 251));
      r.images.push_back(std::move(image));
    }
    return r;
  }
  // ids and exact log-probabilities
  std::vector<std::pair<int32_t, float>> run(Request r) { return tokens(listener.wait(engine->submit(std::move(r)))); }
  static std::vector<std::pair<int32_t, float>> tokens(const std::vector<Event>& events) {
    std::vector<std::pair<int32_t, float>> list;
    for (const Event& e : events)
      if (const TokenEvent* token = e.get<TokenEvent>()) list.push_back({token->choice.id, token->choice.logProb});
    return list;
  }
};

}  // namespace pg::test
