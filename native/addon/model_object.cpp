#include "addon/model_object.h"

#include <algorithm>
#include <utility>

#include "addon/js_args.h"
#include "addon/js_events.h"

namespace pg {

namespace {
constexpr napi_type_tag kTag{0x8f3a1c5de2704b96, 0xa1d5673c08be42f1};
}

napi_value ModelObject::defineClass(napi_env env) {
  const napi_property_descriptor members[] = {
      js::method("submit", js::entry<submit>),         js::method("cancel", js::entry<cancel>),
      js::method("dispose", js::entry<dispose>),       js::method("tokenize", js::entry<tokenize>),
      js::method("detokenize", js::entry<detokenize>), js::method("decodeMask", js::entry<decodeMask>),
      js::method("kvUse", js::entry<kvUse>),
  };
  napi_value constructor;
  js::check(
      napi_define_class(env, "Model", NAPI_AUTO_LENGTH, construct, nullptr, std::size(members), members, &constructor));
  return constructor;
}

napi_value ModelObject::construct(napi_env env, napi_callback_info info) {
  return js::guard(env, [&] {
    const js::Call call(env, info);
    napi_value target;
    js::check(napi_get_new_target(env, info, &target));
    if (!target) fail(Code::invalidOption, "Model is a class: call it with `new`");
    LoadOptions options = js::loadOptions(env, call.args[0]);
    napi_valuetype type;
    js::check(napi_typeof(env, call.args[1], &type));
    if (type != napi_function) js::failExpected(env, "function", "onEvents", call.args[1]);

    std::unique_ptr<ModelObject> model(new ModelObject(env));
    ModelObject* const opened = model.get();
    js::wrap(env, call.self, kTag, std::move(model));
    opened->open(call.self, call.args[1], std::move(options));
    return call.self;
  });
}

void ModelObject::open(napi_value self, napi_value onEvents, LoadOptions options) {
  js::check(napi_create_reference(env_, self, 0, &self_));
  js::check(napi_create_reference(env_, onEvents, 1, &onEvents_));
  auto line = std::make_unique<Line>(Line{this});
  js::check(napi_create_threadsafe_function(env_, nullptr, nullptr, js::toJs(env_, "paligemma.events"), 0, 1,
                                            line.get(), onBellFinalized, line.get(), onRing, &bell_));
  line_ = line.release();
  js::check(napi_unref_threadsafe_function(env_, bell_));
  // Cleanup hooks run last in, first out: added after the bell, ours joins the engine before Node closes the bell.
  js::check(napi_add_env_cleanup_hook(env_, onEnvironmentEnd, this));
  hooked_ = true;
  mailbox_ = std::make_shared<Mailbox>(bell_);
  engine_ = std::make_shared<Engine>(std::move(options),
                                     [mailbox = mailbox_](Event event) { mailbox->post(std::move(event)); });
  begin();  // the load; its end comes through the mailbox, so not before this returns
}

ModelObject::~ModelObject() {
  stopEngine();
  releaseBell();
  if (hooked_) napi_remove_env_cleanup_hook(env_, onEnvironmentEnd, this);
  if (self_) napi_delete_reference(env_, self_);
  if (onEvents_) napi_delete_reference(env_, onEvents_);
}

void ModelObject::stopEngine() {
  if (engine_) engine_->stop();
  if (mailbox_) mailbox_->close();
}

// In the pool: unmapping gigabytes takes a tenth of a second, too long for the event loop.
void ModelObject::releaseEngine() {
  try {
    js::runInPool(
        env_, [engine = std::move(engine_)]() mutable { return engine.reset(), true; },
        [](napi_env env, bool&&) { return js::undefined(env); });
  } catch (const js::Pending&) {  // the environment ends: then here
    engine_.reset();
  }
}

void ModelObject::releaseBell() {
  if (line_) std::exchange(line_, nullptr)->owner = nullptr;
  if (bell_) napi_release_threadsafe_function(std::exchange(bell_, nullptr), napi_tsfn_release);
}

// Node closes the bell itself from here on; the object's finalizer follows.
void ModelObject::onEnvironmentEnd(void* data) {
  auto* model = static_cast<ModelObject*>(data);
  model->hooked_ = false;
  model->stopEngine();
  model->bell_ = nullptr;
}

void ModelObject::onBellFinalized(napi_env, void* data, void*) {
  const std::unique_ptr<Line> line(static_cast<Line*>(data));
  if (line->owner) line->owner->line_ = nullptr;
}

void ModelObject::begin() {
  if (running_++ > 0) return;
  if (bell_) napi_ref_threadsafe_function(env_, bell_);
  napi_reference_ref(env_, self_, nullptr);
}

void ModelObject::finish() {
  if (--running_ > 0) return;
  if (bell_) napi_unref_threadsafe_function(env_, bell_);
  napi_reference_unref(env_, self_, nullptr);
}

// Node passes a null env when the environment ends with a ring pending.
void ModelObject::onRing(napi_env env, napi_value, void* context, void*) {
  const auto* line = static_cast<Line*>(context);
  if (env && line->owner) line->owner->deliver();
}

void ModelObject::account(const Event& event) {
  const bool ends = event.is<EndEvent>() || event.is<ErrorEvent>();
  if (event.is<ReadyEvent>() || (event.is<ErrorEvent>() && event.job == 0)) {
    if (state_ != State::loading) return;
    state_ = event.is<ReadyEvent>() ? State::ready : State::failed;
    finish();
  } else if (event.is<StoppedEvent>()) {
    if (state_ == State::stopped) return;
    if (state_ == State::loading) finish();  // disposed before the load had said how it went
    state_ = State::stopped;
    for (size_t left = jobs_.size() + (disposed_ ? 1 : 0); left > 0; --left) finish();
    jobs_.clear();
  } else if (ends && jobs_.erase(event.job)) {
    finish();
  }
}

void ModelObject::deliver() {
  std::vector<Event> events = mailbox_->take();
  if (events.empty() || !engine_) return;
  begin();  // the object outlives this call, whatever the events end
  try {
    napi_value callback, self, list = js::arrayOf(env_, events.size(), [&](size_t i) {
                                 const auto job = jobs_.find(events[i].job);
                                 const bool withLogProbs = job != jobs_.end() && job->second;
                                 account(events[i]);
                                 return js::eventToJs(env_, std::move(events[i]), *engine_, withLogProbs);
                               });
    self = js::undefined(env_);
    js::check(napi_get_reference_value(env_, onEvents_, &callback));
    if (state_ == State::stopped) {
      // the thread has nothing left to do but return; memory goes with the last user
      stopEngine();
      releaseEngine();
    }
    // A plain call with a status: a worker that is being terminated may refuse at any moment, which is not an error.
    js::check(napi_call_function(env_, self, callback, 1, &list, nullptr));
  } catch (...) {
    napi_value exception;
    bool pending = false;
    if (napi_is_exception_pending(env_, &pending) == napi_ok && pending &&
        napi_get_and_clear_last_exception(env_, &exception) == napi_ok)
      napi_fatal_exception(env_, exception);  // the handler threw: `uncaughtException`, as for any callback
  }
  finish();
}

ModelObject& ModelObject::of(const js::Call& call) {
  return js::unwrap<ModelObject>(call.env, call.self, kTag, "Model");
}

Engine& ModelObject::readyEngine() const {
  if (disposed_ || state_ == State::stopped || !engine_) fail(Code::disposed, "The model was disposed");
  if (state_ != State::ready) fail(Code::invalidOption, "The model is not loaded: wait for its `ready` event");
  return *engine_;
}

napi_value ModelObject::submit(const js::Call& call) {
  ModelObject& model = of(call);
  Request request = js::request(call.env, call.args[0], model.readyEngine().info());
  const Generate* generate = request.get<Generate>();
  const bool withLogProbs = generate && generate->sampling.logProbs >= 0;
  // asked again: an accessor of the request may have disposed the model
  const uint32_t job = model.readyEngine().submit(std::move(request));
  model.jobs_.emplace(job, withLogProbs);
  model.begin();
  return js::toJs(call.env, job);
}

napi_value ModelObject::cancel(const js::Call& call) {
  ModelObject& model = of(call);
  const int64_t job = js::integer(call.env, call.args[0], "job", 0, UINT32_MAX);
  if (model.engine_ && model.jobs_.count(uint32_t(job))) model.engine_->cancel(uint32_t(job));
  return js::undefined(call.env);
}

napi_value ModelObject::dispose(const js::Call& call) {
  ModelObject& model = of(call);
  if (!model.disposed_ && model.state_ != State::stopped && model.engine_) {
    model.disposed_ = true;
    model.begin();
    model.engine_->requestStop();
  }
  return js::undefined(call.env);
}

napi_value ModelObject::tokenize(const js::Call& call) {
  ModelObject& model = of(call);
  const std::string text = js::string(call.env, call.args[0], "text");
  const bool allowControlTokens = js::boolean(call.env, call.args[1], "allowControlTokens");
  const std::vector<int32_t> ids = model.readyEngine().tokenizer().encode(text, allowControlTokens);
  return js::arrayOf(call.env, ids.size(), [&](size_t i) { return ids[i]; });
}

napi_value ModelObject::detokenize(const js::Call& call) {
  ModelObject& model = of(call);
  const std::vector<int32_t> ids = js::integers(call.env, call.args[0], "ids", 0, js::kInt32Max);
  return js::toJs(call.env, model.readyEngine().tokenizer().decode(ids.data(), ids.size()));
}

napi_value ModelObject::decodeMask(const js::Call& call) {
  ModelObject& model = of(call);
  std::vector<int32_t> codes = js::maskCodes(call.env, call.args[0]);
  model.readyEngine();
  return js::runInPool(
      call.env,
      [engine = model.engine_, codes = std::move(codes)] {
        const MaskDecoder* decoder = engine->maskDecoder();
        if (!decoder)
          fail(Code::modelUnsupported,
               "This model has no mask decoder: give vae-oid.npz as `maskDecoder` when loading");
        std::vector<float> mask(size_t(kMaskSize) * kMaskSize);
        decoder->decode(codes.data(), mask.data());
        return mask;
      },
      [](napi_env env, std::vector<float>&& mask) { return js::toJs(env, std::move(mask)); });
}

napi_value ModelObject::kvUse(const js::Call& call) { return js::kvUseToJs(call.env, of(call).readyEngine().kvUse()); }

}  // namespace pg
