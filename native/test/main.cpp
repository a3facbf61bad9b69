#include <algorithm>
#include <cstring>

#include "check.h"
#include "golden.h"

std::filesystem::path pg::test::repository() { return PG_REPOSITORY; }

// Runs every test whose name contains one of the arguments (all without any); the last line is the summary.
int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const auto& test : pg::test::tests()) {
    const bool asked =
        argc < 2 ||
        std::any_of(argv + 1, argv + argc, [&](const char* part) { return std::strstr(test.name, part) != nullptr; });
    if (!asked) continue;
    try {
      test.run();
      ++passed;
    } catch (const pg::test::Failure& f) {
      ++failed;
      std::printf("FAILED %s\n  %s\n  %s\n", test.name, f.where.c_str(), f.what.c_str());
    } catch (const std::exception& e) {
      ++failed;
      std::printf("FAILED %s\n  threw %s\n", test.name, e.what());
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
