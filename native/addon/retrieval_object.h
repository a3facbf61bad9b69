#pragma once
// Late interaction and what makes vectors smaller, without a model.
#include "addon/js.h"

namespace pg {

napi_value maxSim(const js::Call& call);
napi_value createPageStore(const js::Call& call);
napi_value poolTokens(const js::Call& call);

}  // namespace pg
