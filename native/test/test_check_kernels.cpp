// The self-test of kernel tables: it accepts all that ship, names each kernel that is broken, and a broken table is not
// used.
#include <chrono>

#include "check.h"
#include "cpu/check_kernels.h"
#include "cpu/cpu_info.h"

namespace pg {
namespace {

// A kernel of the same type that does nothing.
template <class Result, class... Arguments>
auto idle(Result (*)(Arguments...)) -> Result (*)(Arguments...) {
  return [](Arguments...) -> Result { return Result(); };
}

struct Broken {
  const char* reported;
  Kernels table;
};

// Copies of a table, each with one kernel that does nothing.
std::vector<Broken> brokenCopies(const Kernels& sound) {
  std::vector<Broken> copies;
  const auto without = [&](auto Kernels::* field, const char* reported) {
    if (!(sound.*field)) return;
    copies.push_back({reported, sound});
    copies.back().table.*field = idle(sound.*field);
  };
  without(&Kernels::dot, "dot"), without(&Kernels::scale, "scale"), without(&Kernels::add, "add");
  without(&Kernels::max, "max"), without(&Kernels::expSum, "expSum"), without(&Kernels::softmaxStep, "softmaxStep");
  without(&Kernels::softcap, "softcap"), without(&Kernels::gelu, "gelu"), without(&Kernels::geluMul, "geluMul");
  without(&Kernels::finish, "finish"), without(&Kernels::rmsNorm, "rmsNorm");
  without(&Kernels::layerNorm, "layerNorm"), without(&Kernels::rope, "rope"), without(&Kernels::toF32, "toF32");
  without(&Kernels::fromF32, "fromF32"), without(&Kernels::packRows, "tile"), without(&Kernels::packTokens, "tile");
  without(&Kernels::tile, "tile"), without(&Kernels::mix, "mix"), without(&Kernels::dotRows, "dotRows");
  without(&Kernels::rmsNormGrad, "rmsNormGrad"), without(&Kernels::layerNormGrad, "layerNormGrad");
  without(&Kernels::geluGrad, "geluGrad"), without(&Kernels::geluMulGrad, "geluMulGrad");
  without(&Kernels::softmaxGrad, "softmaxGrad"), without(&Kernels::logSumExpGrad, "logSumExpGrad");
  without(&Kernels::logSumExp, "logSumExp");
  without(&Kernels::packRows8, "tile8"), without(&Kernels::packColumns8, "tile8");
  without(&Kernels::packTokens8, "tile8"), without(&Kernels::tile8, "tile8");
  without(&Kernels::packLevels, "tileLevels"), without(&Kernels::packTokenLevels, "tileLevels");
  without(&Kernels::tileLevels, "tileLevels");
  without(&Kernels::quantizeTokens, "dotRows8"), without(&Kernels::dotRows8, "dotRows8");
  without(&Kernels::packQueries16, "scores16"), without(&Kernels::packKeys16, "scores16");
  without(&Kernels::scores16, "scores16"), without(&Kernels::packValues16, "mix16");
  without(&Kernels::softmax16, "softmax16"), without(&Kernels::mix16, "mix16");
  return copies;
}

std::vector<std::string> wrong(const Kernels& kernels, CheckDepth depth) {
  std::vector<std::string> names;
  for (const KernelCheck& check : checkKernels(kernels, depth))
    if (!check.ok()) names.push_back(check.kernel);
  return names;
}

}  // namespace

TEST(check_kernels_accepts_every_table_of_this_machine) {
  for (const std::string& isa : supportedIsas())
    for (const CheckDepth depth : {CheckDepth::startup, CheckDepth::whole})
      for (const KernelCheck& check : checkKernels(*kernelsFor(isa), depth))
        if (!check.ok())
          throw test::Failure{isa + " " + check.kernel,
                              std::to_string(check.error) + " of " + std::to_string(check.allowed)};
}

TEST(check_kernels_names_the_kernel_that_is_broken) {
  for (const std::string& isa : supportedIsas())
    for (const Broken& broken : brokenCopies(*kernelsFor(isa))) {
      const std::vector<std::string> names = wrong(broken.table, CheckDepth::startup);
      if (std::find(names.begin(), names.end(), broken.reported) == names.end())
        throw test::Failure{isa + ": " + broken.reported, "was not noticed"};
    }
}

TEST(check_kernels_finds_a_small_error_and_nan) {
  Kernels table = kKernelsScalar;
  table.gelu = [](float* x, int64_t n) {
    kKernelsScalar.gelu(x, n);
    x[n - 1] *= 1.001f;  // one value of a row, by a thousandth
  };
  CHECK_EQUAL(wrong(table, CheckDepth::startup).size(), size_t(1));
  table.gelu = [](float* x, int64_t n) {
    kKernelsScalar.gelu(x, n);
    x[n / 2] = NAN;
  };
  CHECK_EQUAL(wrong(table, CheckDepth::startup).size(), size_t(1));
  table.gelu = [](float* x, int64_t n) {
    kKernelsScalar.gelu(x, n);
    x[n] = 7;  // a value behind the row
  };
  CHECK_EQUAL(wrong(table, CheckDepth::startup).size(), size_t(1));
}

TEST(check_kernels_passes_over_a_broken_table) {
  const std::string best = supportedIsas().back();
  Kernels broken = *kernelsFor(best);
  broken.isa = "broken", broken.rmsNorm = idle(broken.rmsNorm), broken.dotRows = idle(broken.dotRows);
  const Kernels* tables[] = {&kKernelsScalar, kernelsFor(best), &broken};
  const KernelChoice choice = lastSound(tables);
  CHECK_EQUAL(std::string(choice.kernels->isa), best);
  CHECK_EQUAL(choice.broken.size(), size_t(1));
  CHECK_EQUAL(choice.broken[0].isa, std::string("broken"));
  CHECK(choice.broken[0].kernels == (std::vector<std::string>{"rmsNorm", "dotRows"}));
  // a broken scalar table is what there is
  const Kernels* only[] = {&broken};
  CHECK_EQUAL(std::string(lastSound(only).kernels->isa), std::string("broken"));
}

TEST(check_kernels_starts_in_time) {
  for (const std::string& isa : supportedIsas()) {
    double best = 1;
    for (int i = 0; i < 5; ++i) {
      const auto start = std::chrono::steady_clock::now();
      checkKernels(*kernelsFor(isa), CheckDepth::startup);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    CHECK(best < 0.1);  // under sanitizers; as users get it, under 2 ms
  }
}

}  // namespace pg
