#pragma once
// The JavaScript class Model: one Engine and the line its events come back on.
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "addon/js.h"
#include "addon/mailbox.h"
#include "serve/engine.h"

namespace pg {

// Every member runs on the JavaScript thread. The engine's thread is joined in three places, all through
// stopEngine(): when `stopped` has been delivered, when the object is collected, when the environment ends.
class ModelObject {
 public:
  static napi_value defineClass(napi_env env);
  ~ModelObject();
  ModelObject(const ModelObject&) = delete;
  ModelObject& operator=(const ModelObject&) = delete;

 private:
  // Context of the thread-safe function, which outlives the ModelObject when that is collected with a ring pending.
  struct Line {
    ModelObject* owner;
  };
  enum class State { loading, ready, failed, stopped };

  explicit ModelObject(napi_env env) : env_(env) {}
  void open(napi_value self, napi_value onEvents, LoadOptions options);

  static napi_value construct(napi_env env, napi_callback_info info);
  static ModelObject& of(const js::Call& call);
  static napi_value submit(const js::Call& call);
  static napi_value cancel(const js::Call& call);
  static napi_value dispose(const js::Call& call);
  static napi_value tokenize(const js::Call& call);
  static napi_value detokenize(const js::Call& call);
  static napi_value decodeMask(const js::Call& call);
  static napi_value kvUse(const js::Call& call);

  static void onRing(napi_env env, napi_value, void* context, void*);
  static void onBellFinalized(napi_env env, void* data, void* hint);
  static void onEnvironmentEnd(void* data);

  Engine& readyEngine() const;  // fails unless ready
  void deliver();
  void account(const Event& event);
  void begin();   // something runs: the process and this object stay alive
  void finish();  // it has ended
  void stopEngine();
  void releaseEngine();
  void releaseBell();

  const napi_env env_;
  napi_ref self_ = nullptr;      // weak while idle, strong while something runs
  napi_ref onEvents_ = nullptr;
  napi_threadsafe_function bell_ = nullptr;
  Line* line_ = nullptr;         // owned by the bell's finalizer
  std::shared_ptr<Mailbox> mailbox_;
  std::shared_ptr<Engine> engine_;  // shared with pool tasks that use its mask decoder
  State state_ = State::loading;
  bool hooked_ = false, disposed_ = false;
  uint32_t running_ = 0;                        // the load, jobs, a dispose that waits for `stopped`
  std::unordered_map<uint32_t, bool> jobs_;     // running job -> whether it asked for log-probabilities
};

}  // namespace pg
