#pragma once
// A thin C++ layer over Node-API's C functions. No node-addon-api: it aborts the process when a call fails while a
// worker is being terminated, and a source build from the npm tarball needs nothing but Node's own headers this way.
#include <node_api.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/current_error.h"

namespace pg::js {

// A JavaScript exception is pending, or the environment is ending and runs no JavaScript any more.
// Thrown to unwind to the border (guard, runInPool, the mailbox), where nothing is left to do.
struct Pending {};

inline void check(napi_status status) {
  if (status != napi_ok) throw Pending{};
}

// Handles made in a loop are freed per turn; also when the turn throws, which Node insists on.
class HandleScope {
 public:
  explicit HandleScope(napi_env env) : env_(env) { check(napi_open_handle_scope(env, &scope_)); }
  ~HandleScope() { napi_close_handle_scope(env_, scope_); }
  HandleScope(const HandleScope&) = delete;
  HandleScope& operator=(const HandleScope&) = delete;

 private:
  napi_env env_;
  napi_handle_scope scope_;
};

// --- C++ to JavaScript ---------------------------------------------------------------------------------------------
inline napi_value undefined(napi_env env) {
  napi_value value;
  check(napi_get_undefined(env, &value));
  return value;
}
template <class T>
  requires std::is_arithmetic_v<T>
napi_value toJs(napi_env env, T number) {
  napi_value value;
  if constexpr (std::is_same_v<T, bool>) check(napi_get_boolean(env, number, &value));
  else check(napi_create_double(env, double(number), &value));
  return value;
}
// Bytes that are not UTF-8 become U+FFFD.
inline napi_value toJs(napi_env env, std::string_view text) {
  napi_value value;
  check(napi_create_string_utf8(env, text.data() ? text.data() : "", text.size(), &value));
  return value;
}
inline napi_value toJs(napi_env env, const std::string& text) { return toJs(env, std::string_view(text)); }
inline napi_value toJs(napi_env env, const char* text) { return toJs(env, std::string_view(text)); }
inline napi_value toJs(napi_env, napi_value value) { return value; }

inline napi_value newObject(napi_env env) {
  napi_value object;
  check(napi_create_object(env, &object));
  return object;
}
template <class T>
void set(napi_env env, napi_value object, const char* name, const T& value) {
  check(napi_set_named_property(env, object, name, toJs(env, value)));
}

inline napi_value newArray(napi_env env, size_t length) {
  napi_value array;
  check(napi_create_array_with_length(env, length, &array));
  return array;
}
// [make(0), make(1), ...]
template <class Make>
napi_value arrayOf(napi_env env, size_t length, const Make& make) {
  const napi_value array = newArray(env, length);
  for (size_t i = 0; i < length; ++i) {
    const HandleScope scope(env);
    check(napi_set_element(env, array, uint32_t(i), toJs(env, make(i))));
  }
  return array;
}

// Small results are copied into an ordinary ArrayBuffer, which JavaScript may transfer to a worker. Large ones keep
// the vector's memory where the host allows it (Electron does not): no second copy, and running out of memory stays
// an error of ours instead of V8's abort.
template <class T>
napi_value arrayBuffer(napi_env env, std::vector<T>&& values) {
  constexpr size_t kCopyBelow = 16 << 20;
  const size_t bytes = values.size() * sizeof(T);
  napi_value buffer;
  if (bytes >= kCopyBelow) {
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    const napi_status status = napi_create_external_arraybuffer(
        env, owned->data(), bytes, [](napi_env, void*, void* hint) { delete static_cast<std::vector<T>*>(hint); },
        owned.get(), &buffer);
    if (status == napi_ok) {
      owned.release();
      return buffer;
    }
    if (status != napi_no_external_buffers_allowed) throw Pending{};
    values = std::move(*owned);
  }
  void* data = nullptr;
  check(napi_create_arraybuffer(env, bytes, &data, &buffer));
  if (bytes) std::copy(values.begin(), values.end(), static_cast<T*>(data));
  return buffer;
}
inline napi_value toJs(napi_env env, std::vector<uint8_t>&& bytes) {
  const size_t length = bytes.size();
  napi_value array;
  check(napi_create_typedarray(env, napi_uint8_array, length, arrayBuffer(env, std::move(bytes)), 0, &array));
  return array;
}
inline napi_value toJs(napi_env env, std::vector<float>&& values) {
  const size_t length = values.size();
  napi_value array;
  check(napi_create_typedarray(env, napi_float32_array, length, arrayBuffer(env, std::move(values)), 0, &array));
  return array;
}

// An Error with .code; never throws, undefined where the environment is ending.
napi_value newError(napi_env env, Code code, const std::string& message) noexcept;

// A synchronous entry point: what it throws becomes a JavaScript exception.
template <class Body>
napi_value guard(napi_env env, const Body& body) noexcept {
  try {
    return body();
  } catch (const Pending&) {
    bool pending = false;
    if (napi_is_exception_pending(env, &pending) == napi_ok && !pending)
      napi_throw_error(env, codeName(Code::internal), "A Node-API call failed");
  } catch (...) {
    const Error error = currentError();
    // not napi_throw_error: a message may hold a NUL that the user wrote
    if (const napi_value exception = newError(env, error.code(), error.message())) napi_throw(env, exception);
  }
  return nullptr;
}

// Runs `work` on the libuv pool; the promise resolves with what `finish` makes of its result on the JavaScript thread.
// `work` must own what it uses. Both are destroyed on the JavaScript thread, whatever happens.
template <class Result>
struct PoolTask {
  std::function<Result()> work;
  std::function<napi_value(napi_env, Result&&)> finish;
  std::unique_ptr<Result> result;
  std::unique_ptr<Error> error;
  napi_async_work handle = nullptr;
  napi_deferred deferred = nullptr;

  static void execute(napi_env, void* data) {
    auto* task = static_cast<PoolTask*>(data);
    try {
      task->result = std::make_unique<Result>(task->work());
    } catch (...) {
      task->error = std::make_unique<Error>(currentError());
    }
  }

  static void complete(napi_env env, napi_status, void* data) {
    const std::unique_ptr<PoolTask> task(static_cast<PoolTask*>(data));
    napi_delete_async_work(env, task->handle);
    try {
      if (task->result) {
        const napi_value value = task->finish(env, std::move(*task->result));
        napi_resolve_deferred(env, task->deferred, value);
        return;
      }
    } catch (const Pending&) {
      napi_value exception;
      bool pending = false;
      if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
          napi_get_and_clear_last_exception(env, &exception) == napi_ok) {
        napi_reject_deferred(env, task->deferred, exception);
        return;
      }
    } catch (...) {
      task->error = std::make_unique<Error>(currentError());
    }
    const Error error = task->error ? *task->error : Error(Code::aborted, "The environment is ending");
    if (const napi_value reason = newError(env, error.code(), error.message()))
      napi_reject_deferred(env, task->deferred, reason);
  }
};

// Keeps an object alive, and so the memory of a typed array, until pool work has read it. Made and destroyed on the
// JavaScript thread, as the work of runInPool is.
class Reference {
 public:
  Reference(napi_env env, napi_value object) : env_(env) { check(napi_create_reference(env, object, 1, &reference_)); }
  ~Reference() { napi_delete_reference(env_, reference_); }
  Reference(const Reference&) = delete;
  Reference& operator=(const Reference&) = delete;

 private:
  napi_env env_;
  napi_ref reference_ = nullptr;
};

template <class Work, class Finish>
napi_value runInPool(napi_env env, Work work, Finish finish) {
  using Result = decltype(work());
  auto task = std::make_unique<PoolTask<Result>>();
  task->work = std::move(work);
  task->finish = std::move(finish);
  napi_value name = toJs(env, "paligemma"), promise;
  check(napi_create_promise(env, &task->deferred, &promise));
  check(napi_create_async_work(env, nullptr, name, PoolTask<Result>::execute, PoolTask<Result>::complete, task.get(),
                               &task->handle));
  if (napi_queue_async_work(env, task->handle) != napi_ok) {
    napi_delete_async_work(env, task->handle);
    throw Pending{};
  }
  task.release();  // complete() owns it now
  return promise;
}

// --- native objects ------------------------------------------------------------------------------------------------
// Wrapped pointers carry the class's tag, so that a method called on a foreign object throws instead of crashing.
template <class T>
void wrap(napi_env env, napi_value object, const napi_type_tag& tag, std::unique_ptr<T> native) {
  check(napi_type_tag_object(env, object, &tag));
  check(napi_wrap(
      env, object, const_cast<std::remove_const_t<T>*>(native.get()),
      [](napi_env, void* data, void*) { delete static_cast<T*>(data); }, nullptr, nullptr));
  native.release();
}

template <class T>
T& unwrap(napi_env env, napi_value object, const napi_type_tag& tag, const char* what) {
  napi_valuetype type;
  bool ours = false;
  void* native = nullptr;
  check(napi_typeof(env, object, &type));
  if (type == napi_object) check(napi_check_object_type_tag(env, object, &tag, &ours));
  if (!ours || napi_unwrap(env, object, &native) != napi_ok || !native)
    fail(Code::invalidOption, "This method was called on something that is not a ", what);
  return *static_cast<T*>(native);
}

// The arguments of a call; missing ones are undefined.
struct Call {
  static constexpr size_t kMax = 8;
  napi_env env;
  napi_value self = nullptr;
  napi_value args[kMax] = {};
  Call(napi_env e, napi_callback_info info) : env(e) {
    size_t count = kMax;
    check(napi_get_cb_info(env, info, &count, args, &self, nullptr));
  }
};

// A native function: static napi_value name(const Call&).
template <napi_value (*Body)(const Call&)>
napi_value entry(napi_env env, napi_callback_info info) {
  return guard(env, [&] { return Body(Call(env, info)); });
}

inline napi_property_descriptor method(const char* name, napi_callback function) {
  return {name, nullptr, function, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}
inline napi_property_descriptor getter(const char* name, napi_callback function) {
  return {name, nullptr, nullptr, function, nullptr, nullptr, napi_enumerable, nullptr};
}

}  // namespace pg::js
