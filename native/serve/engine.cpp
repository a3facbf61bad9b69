#include "serve/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>

#include "base/current_error.h"
#include "base/thread_room.h"
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
  struct Live {
    uint32_t id;
    std::weak_ptr<Job> job;
  };
  std::vector<Live> live;                   // for cancel()
  uint32_t nextJob = 1;
  bool closed = false;                      // the engine's thread takes nothing any more

  std::mutex joining;
  std::thread thread;                       // last: starts when everything above exists

  void run();
  bool load();
  void work();
  void work(Scheduler& scheduler);
  void endAll(const Error& error);
  void endJob(uint32_t job, Code code, const std::string& message);
};

void Engine::Impl::endJob(uint32_t job, Code code, const std::string& message) {
  post({job, ErrorEvent{code, message}});
}

bool Engine::Impl::load() {
  try {
    model = Model::load(options);
    post({0, ReadyEvent{}});
    return true;
  } catch (...) {
    const Error error = currentError();
    const bool named = error.code() != Code::outOfMemory || error.message().find(options.path) != std::string::npos;
    post({0, ErrorEvent{error.code(), named ? error.message() : options.path + ": " + error.message()}});
    return false;
  }
}

// Requests meet their own failures in the scheduler. What goes wrong between them ends them all, but not the model.
void Engine::Impl::work() {
  for (;;) {
    try {
      Scheduler scheduler(*model, options.maxSequences, stopping, post);
      return work(scheduler);
    } catch (...) {
      endAll(currentError());
    }
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return stopping || !inbox.empty(); });
    if (stopping) return;
  }
}

void Engine::Impl::endAll(const Error& error) {
  std::vector<Live> told;
  {
    std::lock_guard lock(mutex);
    inbox.clear();
    told.swap(live);
  }
  for (const Live& one : told) endJob(one.id, error.code(), error.message());  // those that had ended ignore it
}

void Engine::Impl::work(Scheduler& scheduler) {
  for (;;) {
    std::vector<std::shared_ptr<Job>> arrived;
    {
      std::unique_lock lock(mutex);
      if (!scheduler.busy()) wake.wait(lock, [&] { return stopping || !inbox.empty(); });
      arrived.swap(inbox);
      std::erase_if(live, [](const Live& one) { return one.job.expired(); });
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
  for (const auto& job : left) endJob(job->id, Code::disposed, "The model was disposed before the request ran");
  post({0, StoppedEvent{}});
}

Engine::Engine(LoadOptions options, std::function<void(Event)> post) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->post = std::move(post);
  try {
    if (!roomForThread()) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
  } catch (const std::system_error& e) {
    fail(Code::outOfMemory, impl_->options.path, ": the system refused a thread for the model (", e.what(),
         "). Raise the limit on threads (the container's pids limit, TasksMax, ulimit -u) or on memory (ulimit -v)");
  }
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
      impl_->live.push_back({job->id, job});
    }
  }
  if (closed) impl_->endJob(job->id, Code::disposed, "The model is disposed");
  impl_->wake.notify_all();
  return job->id;
}

void Engine::cancel(uint32_t id) {
  std::lock_guard lock(impl_->mutex);
  for (const auto& one : impl_->live)
    if (const auto job = one.job.lock(); job && job->id == id) job->cancel.set = true;
  impl_->wake.notify_all();
}

void Engine::requestStop() {
  std::lock_guard lock(impl_->mutex);
  impl_->stopping = true;
  for (const auto& one : impl_->live)
    if (const auto job = one.job.lock()) job->cancel.set = true;
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
KvUse Engine::kvUse() const { return {impl_->model->kvPool->usedPages(), impl_->model->kvPool->maxPages()}; }

}  // namespace pg
