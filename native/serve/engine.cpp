#include "serve/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "serve/scheduler.h"

namespace pg {

struct Engine::Impl {
  LoadOptions options;
  std::function<void(Event)> post;
  std::unique_ptr<Model> model;             // set before ready is posted, then never changed
  std::atomic<bool> stopping{false};

  std::mutex mutex;                         // guards what follows
  std::condition_variable wake;
  std::vector<std::shared_ptr<Job>> inbox;  // submitted, not yet seen by the engine's thread
  std::vector<std::weak_ptr<Job>> live;     // for cancel()
  uint32_t nextJob = 1;
  bool closed = false;                      // the engine's thread takes nothing any more

  std::mutex joining;
  std::thread thread;                       // last: starts when everything above exists

  void run();
  bool load();
  void work();
  void endJob(const Job& job, Code code, const std::string& message);
};

void Engine::Impl::endJob(const Job& job, Code code, const std::string& message) {
  Event event;
  event.kind = Event::Kind::error;
  event.job = job.id;
  event.code = code;
  event.message = message;
  post(std::move(event));
}

bool Engine::Impl::load() {
  Event event;
  try {
    model = std::make_unique<Model>(options);
    event.kind = Event::Kind::ready;
    post(std::move(event));
    return true;
  } catch (const Error& e) {
    event.code = e.code();
    event.message = e.message();
  } catch (const std::bad_alloc&) {
    event.code = Code::outOfMemory;
    event.message =
        options.path + ": out of memory while loading. Close other programs or lower contextSize and maxSequences";
  } catch (const std::exception& e) {
    event.message = e.what();
  }
  event.kind = Event::Kind::error;
  post(std::move(event));
  return false;
}

void Engine::Impl::work() {
  Scheduler scheduler(*model, options.maxSequences, stopping, post);
  for (;;) {
    std::vector<std::shared_ptr<Job>> arrived;
    {
      std::unique_lock lock(mutex);
      if (!scheduler.busy()) wake.wait(lock, [&] { return stopping || !inbox.empty(); });
      arrived.swap(inbox);
      std::erase_if(live, [](const auto& job) { return job.expired(); });
    }
    for (auto& job : arrived) scheduler.enqueue(std::move(job));
    // after a stop every job's flag is set: the next step ends them all
    if (stopping && !scheduler.busy()) return;
    scheduler.step();
  }
}

void Engine::Impl::run() {
  if (load()) work();
  std::vector<std::shared_ptr<Job>> left;
  {
    std::unique_lock lock(mutex);
    if (!model) wake.wait(lock, [&] { return stopping.load(); });  // a failed load still answers submits until disposed
    closed = true;
    left.swap(inbox);
  }
  for (const auto& job : left) endJob(*job, Code::disposed, "The model was disposed before the request ran");
  Event event;
  event.kind = Event::Kind::stopped;
  post(std::move(event));
}

Engine::Engine(LoadOptions options, std::function<void(Event)> post) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->post = std::move(post);
  impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

Engine::~Engine() { stop(); }

uint32_t Engine::submit(Request request) {
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  bool closed;
  {
    std::lock_guard lock(impl_->mutex);
    job->id = impl_->nextJob++;
    closed = impl_->closed || impl_->stopping;
    if (!closed) {
      impl_->inbox.push_back(job);
      impl_->live.push_back(job);
    }
  }
  if (closed) impl_->endJob(*job, Code::disposed, "The model is disposed");
  impl_->wake.notify_all();
  return job->id;
}

void Engine::cancel(uint32_t id) {
  std::lock_guard lock(impl_->mutex);
  for (const auto& weak : impl_->live)
    if (const auto job = weak.lock(); job && job->id == id) job->cancel.set = true;
  impl_->wake.notify_all();
}

void Engine::requestStop() {
  std::lock_guard lock(impl_->mutex);
  impl_->stopping = true;
  for (const auto& weak : impl_->live)
    if (const auto job = weak.lock()) job->cancel.set = true;
  impl_->wake.notify_all();
}

void Engine::stop() {
  requestStop();
  std::lock_guard lock(impl_->joining);
  if (impl_->thread.joinable()) impl_->thread.join();
}

const ModelInfo& Engine::info() const { return impl_->model->info; }
const Tokenizer& Engine::tokenizer() const { return *impl_->model->tokenizer; }
const MaskDecoder* Engine::maskDecoder() const { return impl_->model->maskDecoder.get(); }

}  // namespace pg
