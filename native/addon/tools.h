#pragma once
// Short pieces of arithmetic on caller's data, run on the libuv pool.
#include "addon/js.h"

namespace pg {

napi_value quantizeRows(const js::Call& call);
napi_value resize(const js::Call& call);
napi_value pasteMask(const js::Call& call);
napi_value cpuInfo(const js::Call& call);
napi_value hasCudaCards(const js::Call& call);
napi_value devices(const js::Call& call);
napi_value checkTable(const js::Call& call);
napi_value machineLimits(const js::Call& call);
napi_value threadRoomOf(const js::Call& call);
napi_value checkPattern(const js::Call& call);

}  // namespace pg
