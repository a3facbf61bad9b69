// The module: one function per entry of NativeBinding in lib/native.ts. No state: everything lives in the objects
// JavaScript holds, so the addon loads in any number of workers and environments.
#include "addon/format_objects.h"
#include "addon/model_object.h"
#include "addon/retrieval_object.h"
#include "addon/tools.h"

NAPI_MODULE_INIT() {
  using namespace pg;
  return js::guard(env, [&] {
    const napi_property_descriptor functions[] = {
        js::method("openTokenizer", js::entry<openTokenizer>),
        js::method("openMaskDecoder", js::entry<openMaskDecoder>),
        js::method("openMaskEncoder", js::entry<openMaskEncoder>),
        js::method("inspect", js::entry<inspect>),
        js::method("checkWeights", js::entry<checkWeights>),
        js::method("dequantizeTensor", js::entry<dequantizeTensor>),
        js::method("quantizeRows", js::entry<quantizeRows>),
        js::method("resize", js::entry<resize>),
        js::method("pasteMask", js::entry<pasteMask>),
        js::method("cpuInfo", js::entry<cpuInfo>),
        js::method("hasCudaCards", js::entry<hasCudaCards>),
        js::method("listDevices", js::entry<devices>),
        js::method("checkKernels", js::entry<checkTable>),
        js::method("machineLimits", js::entry<machineLimits>),
        js::method("threadRoom", js::entry<threadRoomOf>),
        js::method("checkPattern", js::entry<checkPattern>),
        js::method("maxSim", js::entry<maxSim>),
        js::method("createPageStore", js::entry<createPageStore>),
        js::method("poolTokens", js::entry<poolTokens>),
    };
    js::check(napi_define_properties(env, exports, std::size(functions), functions));
    js::set(env, exports, "Model", ModelObject::defineClass(env));
    return exports;
  });
}
